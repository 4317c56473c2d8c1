//! What changed between two texts, line by line, as administrators read it in reviews.

use std::fmt::Write;

/// Lines around a change that are shown with it.
const CONTEXT: usize = 3;
/// Changed lines that are looked for one by one. Beyond it the texts have little in common, and all
/// lines between what they share at their ends are shown as replaced: it bounds time and memory.
const MOST_STEPS: usize = 1_000;

/// The difference between two texts in the unified form: lines that went begin with `-`, lines that
/// came with `+`. Empty when the texts are the same.
pub fn line_difference(old: &str, new: &str) -> String {
    let old: Vec<&str> = old.lines().collect();
    let new: Vec<&str> = new.lines().collect();
    let lines = compare(&old, &new);
    let changed: Vec<usize> = (0..lines.len())
        .filter(|at| !matches!(lines[*at], Line::Same(_)))
        .collect();
    let mut text = String::new();
    let mut shown_to = 0;
    for at in changed {
        if at < shown_to {
            continue;
        }
        // A hunk: from here on as long as the next change is near.
        let from = at.saturating_sub(CONTEXT).max(shown_to);
        let mut to = at + 1;
        let mut same = 0;
        while to < lines.len() && same <= 2 * CONTEXT {
            same = match lines[to] {
                Line::Same(_) => same + 1,
                _ => 0,
            };
            to += 1;
        }
        let to = to - same.saturating_sub(CONTEXT);
        let before = |lines: &[Line<'_>]| {
            let old = lines.iter().filter(|line| !matches!(line, Line::Came(_)));
            let new = lines.iter().filter(|line| !matches!(line, Line::Went(_)));
            (old.count(), new.count())
        };
        let (old_before, new_before) = before(&lines[..from]);
        let (old_here, new_here) = before(&lines[from..to]);
        let _ = writeln!(
            text,
            "@@ -{},{old_here} +{},{new_here} @@",
            old_before + 1,
            new_before + 1
        );
        for line in &lines[from..to] {
            let _ = match line {
                Line::Same(line) => writeln!(text, " {line}"),
                Line::Went(line) => writeln!(text, "-{line}"),
                Line::Came(line) => writeln!(text, "+{line}"),
            };
        }
        shown_to = to;
    }
    text
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Went(&'a str),
    Came(&'a str),
}

/// Myers, "An O(ND) Difference Algorithm and Its Variations" (1986), on what lies between the shared
/// ends.
fn compare<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let tail = old[head..]
        .iter()
        .rev()
        .zip(new[head..].iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let (middle_old, middle_new) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let mut lines: Vec<Line<'a>> = old[..head].iter().map(|line| Line::Same(line)).collect();
    match shortest(middle_old, middle_new) {
        Some(middle) => lines.extend(middle),
        None => {
            lines.extend(middle_old.iter().map(|line| Line::Went(line)));
            lines.extend(middle_new.iter().map(|line| Line::Came(line)));
        }
    }
    lines.extend(old[old.len() - tail..].iter().map(|line| Line::Same(line)));
    lines
}

/// The shortest way from one to the other; none when it is longer than [`MOST_STEPS`].
fn shortest<'a>(old: &[&'a str], new: &[&'a str]) -> Option<Vec<Line<'a>>> {
    // For each number of steps, and each diagonal (lines of `old` less lines of `new`) from -steps to
    // steps: the farthest line of `old` that is reached.
    let mut reached: Vec<Vec<usize>> = Vec::new();
    for steps in 0..=MOST_STEPS.min(old.len() + new.len()) {
        let mut row = Vec::with_capacity(steps + 1);
        for at in 0..=steps {
            let diagonal = 2 * at as isize - steps as isize;
            let mut x = start(&reached, steps, at);
            while x < old.len()
                && let y = (x as isize - diagonal) as usize
                && y < new.len()
                && old[x] == new[y]
            {
                x += 1;
            }
            let y = x as isize - diagonal;
            row.push(x);
            if x >= old.len() && y >= new.len() as isize {
                reached.push(row);
                return Some(way_back(&reached, old, new));
            }
        }
        reached.push(row);
    }
    None
}

/// Where the walk on a diagonal begins: a line down or to the right from the step before.
fn start(reached: &[Vec<usize>], steps: usize, at: usize) -> usize {
    let Some(before) = steps.checked_sub(1).map(|before| &reached[before]) else {
        return 0;
    };
    // A line of `new` came (the diagonal above), or one of `old` went (the diagonal below).
    let came = before.get(at).copied();
    let went = at.checked_sub(1).map(|below| before[below] + 1);
    match (came, went) {
        (Some(came), Some(went)) => came.max(went),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => 0,
    }
}

fn way_back<'a>(reached: &[Vec<usize>], old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    let (mut x, mut y) = (old.len(), new.len());
    for steps in (0..reached.len()).rev() {
        let diagonal = x as isize - y as isize;
        let at = ((diagonal + steps as isize) / 2) as usize;
        let from = start(reached, steps, at);
        while x > from && y > 0 {
            (x, y) = (x - 1, y - 1);
            lines.push(Line::Same(old[x]));
        }
        if steps == 0 {
            break;
        }
        let came = reached[steps - 1].get(at).copied();
        if came == Some(from) {
            y -= 1;
            lines.push(Line::Came(new[y]));
        } else {
            x -= 1;
            lines.push(Line::Went(old[x]));
        }
    }
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_went_and_what_came_is_shown_with_its_surroundings() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n";
        let new = "1\n2\n3\n4\nfive\n6\n7\n8\n9\n10\n";
        assert_eq!(
            line_difference(old, new),
            "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n"
        );
        assert_eq!(line_difference(old, old), "");
        assert_eq!(line_difference("", "a\n"), "@@ -1,0 +1,1 @@\n+a\n");
    }

    #[test]
    fn texts_with_nothing_in_common_are_replaced() {
        let old: String = (0..3_000).map(|n| format!("old {n}\n")).collect();
        let new: String = (0..3_000).map(|n| format!("new {n}\n")).collect();
        let told = line_difference(&old, &new);
        assert_eq!(told.lines().count(), 6_001);
    }

    proptest! {
        #[test]
        fn the_lines_give_both_texts_back(
            old in proptest::collection::vec("[a-c]", 0..30),
            new in proptest::collection::vec("[a-c]", 0..30),
        ) {
            let old: Vec<&str> = old.iter().map(String::as_str).collect();
            let new: Vec<&str> = new.iter().map(String::as_str).collect();
            let lines = compare(&old, &new);
            let of_old: Vec<&str> = lines.iter().filter_map(|line| match line {
                Line::Same(line) | Line::Went(line) => Some(*line),
                Line::Came(_) => None,
            }).collect();
            let of_new: Vec<&str> = lines.iter().filter_map(|line| match line {
                Line::Same(line) | Line::Came(line) => Some(*line),
                Line::Went(_) => None,
            }).collect();
            prop_assert_eq!(of_old, old);
            prop_assert_eq!(of_new, new);
        }

        #[test]
        fn hunks_hold_every_change_once(
            old in proptest::collection::vec("[a-z]", 0..60),
            new in proptest::collection::vec("[a-z]", 0..60),
        ) {
            let told = line_difference(&old.join("\n"), &new.join("\n"));
            let old: Vec<&str> = old.iter().map(String::as_str).collect();
            let new: Vec<&str> = new.iter().map(String::as_str).collect();
            let lines = compare(&old, &new);
            let count = |sign: char| told.lines().filter(|line| line.starts_with(sign)).count();
            prop_assert_eq!(count('-'), lines.iter().filter(|line| matches!(line, Line::Went(_))).count());
            prop_assert_eq!(count('+'), lines.iter().filter(|line| matches!(line, Line::Came(_))).count());
        }
    }
}
