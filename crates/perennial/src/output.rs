//! How lists and records are printed: for people, as JSON, as CSV.

use std::io::Write;

use domain::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::cli::Format;

/// A column of a list: its heading, and where its value stands in the record.
pub struct Column(pub &'static str, pub &'static str);

/// Prints a list. JSON is the records as the API gives them; tables and CSV show `columns`.
pub fn list<T: Serialize>(format: Format, items: &[T], columns: &[Column]) -> anyhow::Result<()> {
    let records: Vec<Value> = items
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()?;
    if format.json {
        return print(&serde_json::to_string_pretty(&records)?);
    }
    let rows: Vec<Vec<String>> = records
        .iter()
        .map(|record| {
            columns
                .iter()
                .map(|Column(_, pointer)| cell(record, pointer))
                .collect()
        })
        .collect();
    let headings: Vec<String> = columns
        .iter()
        .map(|Column(heading, _)| heading.to_string())
        .collect();
    if format.csv {
        csv(&headings, &rows)
    } else {
        table(&headings, &rows)
    }
}

/// Prints one record: a line for each of `columns`, or JSON or CSV.
pub fn record<T: Serialize>(format: Format, item: &T, columns: &[Column]) -> anyhow::Result<()> {
    let value = serde_json::to_value(item)?;
    if format.json {
        return print(&serde_json::to_string_pretty(&value)?);
    }
    if format.csv {
        return list(format, &[item], columns);
    }
    let width = columns
        .iter()
        .map(|Column(heading, _)| heading.len())
        .max()
        .unwrap_or(0);
    for Column(heading, pointer) in columns {
        let text = one_line(&cell(&value, pointer));
        if !text.is_empty() {
            print(&format!("{heading:<width$}  {text}"))?;
        }
    }
    Ok(())
}

/// Prints what was done: a sentence for people, the value for programs.
pub fn done<T: Serialize>(format: Format, sentence: &str, value: &T) -> anyhow::Result<()> {
    if format.json {
        print(&serde_json::to_string_pretty(value)?)
    } else {
        print(sentence)
    }
}

/// Prints a line. A reader that went away (`| head`) ends the program quietly.
pub fn print(line: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => Ok(written?),
    }
}

fn cell(record: &Value, pointer: &str) -> String {
    match record.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => match text.parse() {
            Ok(at) => to_the_second(at).to_string(),
            Err(_) => text.clone(),
        },
        Some(other) => other.to_string(),
    }
}

/// A text of several lines without what would steer a terminal: devices are strangers.
pub fn plain(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => c,
        hidden if hidden.is_control() => '\u{fffd}',
        plain => plain,
    };
    text.chars().map(shown).collect()
}

/// The same in one line.
fn one_line(text: &str) -> String {
    plain(text.trim_end()).replace(['\n', '\t'], " ")
}

/// Nobody reads fractions.
pub fn to_the_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn table(headings: &[String], rows: &[Vec<String>]) -> anyhow::Result<()> {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|text| one_line(text)).collect())
        .collect();
    let mut widths: Vec<usize> = headings.iter().map(String::len).collect();
    for row in &rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    for row in std::iter::once(headings).chain(rows.iter().map(Vec::as_slice)) {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(text, width)| format!("{text:<width$}"))
            .collect();
        print(cells.join("  ").trim_end())?;
    }
    Ok(())
}

fn csv(headings: &[String], rows: &[Vec<String>]) -> anyhow::Result<()> {
    for row in std::iter::once(headings).chain(rows.iter().map(Vec::as_slice)) {
        let cells: Vec<_> = row.iter().map(|text| quoted(text)).collect();
        print(&cells.join(","))?;
    }
    Ok(())
}

/// RFC 4180. A text that a spreadsheet would take for a formula is made a text: device facts are
/// strangers' input.
fn quoted(text: &str) -> String {
    let text = if text.starts_with(['=', '+', '-', '@']) {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    if text.contains(['"', ',', '\n', '\r', '\'']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_csv() {
        for (text, written) in [
            ("a", "a"),
            ("a,b", "\"a,b\""),
            ("a\"b", "\"a\"\"b\""),
            ("=1+1", "\"'=1+1\""),
        ] {
            assert_eq!(quoted(text), written);
        }
    }
}
