//! Fault points for tests: a build with the feature `test-faults` can be made to die at any of them,
//! as a program that is killed there does. Other builds have nothing of this.

/// A point at which something becomes durable, or goes to the other side. The program dies here when
///
/// * this is the point whose number, counted from 1, `PERENNIAL_TEST_KILL_AT` tells, or
/// * this is the last of the names that `PERENNIAL_TEST_DIE_AT` tells, separated by commas, and those
///   before it were passed in their order. So what happens while a program starts can be let pass.
#[cfg(feature = "test-faults")]
pub fn step(name: &str) {
    use std::sync::{LazyLock, Mutex};

    static LEFT: LazyLock<Mutex<Left>> = LazyLock::new(|| Mutex::new(Left::asked_for()));
    let dies = LEFT.lock().is_ok_and(|mut left| left.ends_with(name));
    if dies {
        // At once, without unwinding, and nothing is flushed.
        std::process::abort();
    }
}

#[cfg(not(feature = "test-faults"))]
pub fn step(_name: &str) {}

/// What this program may still pass.
#[cfg(feature = "test-faults")]
struct Left {
    steps: Option<u64>,
    /// The last one first.
    names: Vec<String>,
}

#[cfg(feature = "test-faults")]
impl Left {
    fn asked_for() -> Self {
        let asked = |variable| std::env::var(variable).ok();
        let names = asked("PERENNIAL_TEST_DIE_AT").unwrap_or_default();
        let names = names.split(',').filter(|name| !name.is_empty());
        Self {
            steps: asked("PERENNIAL_TEST_KILL_AT")
                .map(|number| number.parse().expect("PERENNIAL_TEST_KILL_AT is a number")),
            names: names.rev().map(str::to_owned).collect(),
        }
    }

    fn ends_with(&mut self, name: &str) -> bool {
        if let Some(steps) = &mut self.steps {
            *steps = steps.saturating_sub(1);
        }
        let named = self.names.last().is_some_and(|next| next == name);
        if named {
            self.names.pop();
        }
        self.steps == Some(0) || (named && self.names.is_empty())
    }
}

#[cfg(all(test, feature = "test-faults"))]
mod tests {
    use super::*;

    #[test]
    fn a_program_dies_at_its_number_or_after_its_names() {
        let mut left = Left {
            steps: Some(2),
            names: Vec::new(),
        };
        assert!(!left.ends_with("a") && left.ends_with("b"));
        let mut left = Left {
            steps: None,
            names: vec!["commit".to_owned(), "issue".to_owned()],
        };
        let passed = ["commit", "commit", "issue", "other", "commit"];
        let dies: Vec<bool> = passed.iter().map(|name| left.ends_with(name)).collect();
        assert_eq!(dies, [false, false, false, false, true]);
    }
}
