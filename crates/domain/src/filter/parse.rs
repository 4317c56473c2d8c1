//! Reads a filter: a lexer, and a parser by recursive descent. Both are bounded, since whoever may
//! make a collection can send any text.

use std::fmt;
use std::str::FromStr;

use super::field::COMPLIANCE;
use super::{Comparison, Condition, Expression, Field, Filter, Test, TextField};
use crate::compliance::Version;
use crate::{ComplianceState, DeviceState, HardwareUuid};

/// The longest filter, in bytes.
const LONGEST: usize = 4096;
/// Parentheses and `!` inside each other.
const DEEPEST: usize = 32;
/// Numbers of days lie between this and its negative: more than two thousand years.
const MOST_DAYS: i64 = 1_000_000;

/// Where a filter is wrong, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidFilter {
    /// Byte at which the wrong part begins.
    pub position: usize,
    /// Character at which it begins, from 1.
    column: usize,
    problem: String,
    hint: Option<String>,
}

impl fmt::Display for InvalidFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.column, self.problem)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for InvalidFilter {}

impl FromStr for Filter {
    type Err = InvalidFilter;

    fn from_str(given: &str) -> Result<Self, InvalidFilter> {
        let wrong = |fault: Fault| InvalidFilter {
            column: given[..fault.position].chars().count() + 1,
            position: fault.position,
            problem: fault.problem,
            hint: fault.hint,
        };
        if given.len() > LONGEST {
            return Err(wrong(Fault::new(
                0,
                format!("the filter is longer than {LONGEST} bytes"),
            )));
        }
        let tokens = tokens(given).map_err(wrong)?;
        let mut parser = Parser {
            tokens,
            next: 0,
            depth: 0,
        };
        parser.whole().map(Filter).map_err(wrong)
    }
}

/// An error whose column is not counted yet.
struct Fault {
    position: usize,
    problem: String,
    hint: Option<String>,
}

impl Fault {
    fn new(position: usize, problem: impl Into<String>) -> Self {
        Self {
            position,
            problem: problem.into(),
            hint: None,
        }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

type Parsed<T> = Result<T, Fault>;

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Version(Version),
    Number(i64),
    Compare(Comparison),
    And,
    Or,
    Not,
    Open,
    Close,
    OpenList,
    CloseList,
    Comma,
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "`{name}`"),
            Self::Text(text) => write!(f, "the text \"{text}\""),
            Self::Version(version) => write!(f, "the version {version}"),
            Self::Number(number) => write!(f, "the number {number}"),
            Self::Compare(comparison) => write!(f, "`{}`", comparison.sign()),
            Self::And => f.write_str("`&&`"),
            Self::Or => f.write_str("`||`"),
            Self::Not => f.write_str("`!`"),
            Self::Open => f.write_str("`(`"),
            Self::Close => f.write_str("`)`"),
            Self::OpenList => f.write_str("`[`"),
            Self::CloseList => f.write_str("`]`"),
            Self::Comma => f.write_str("`,`"),
            Self::End => f.write_str("the end"),
        }
    }
}

/// Signs, longest first.
const SIGNS: &[(&str, Token)] = &[
    ("==", Token::Compare(Comparison::Equal)),
    ("!=", Token::Compare(Comparison::NotEqual)),
    ("<=", Token::Compare(Comparison::LessOrEqual)),
    (">=", Token::Compare(Comparison::GreaterOrEqual)),
    ("&&", Token::And),
    ("||", Token::Or),
    ("<", Token::Compare(Comparison::Less)),
    (">", Token::Compare(Comparison::Greater)),
    ("!", Token::Not),
    ("(", Token::Open),
    (")", Token::Close),
    ("[", Token::OpenList),
    ("]", Token::CloseList),
    (",", Token::Comma),
];

/// What people who know another language write, and what they mean.
const FOREIGN_SIGNS: &[(&str, &str)] = &[
    ("<>", "write != for unequal"),
    ("=", "write == to compare"),
    ("&", "write && for and"),
    ("|", "write || for or"),
    ("'", "texts stand in double quotes"),
    ("\u{201c}", "write straight double quotes"),
    ("\u{201d}", "write straight double quotes"),
];

/// The tokens with the byte at which each begins; the last one is the end.
fn tokens(text: &str) -> Parsed<Vec<(usize, Token)>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (token, length) = if first == '"' {
            let (content, length) = quoted(rest, at)?;
            (Token::Text(content), length)
        } else if rest.starts_with("v\"") {
            let (content, length) = quoted(&rest[1..], at + 1)?;
            let version = content
                .parse()
                .map_err(|error| Fault::new(at, format!("{error}")))?;
            (Token::Version(version), length + 1)
        } else if first.is_ascii_digit() || first == '-' {
            number(rest, at)?
        } else if first.is_alphabetic() || first == '_' {
            let end = rest
                .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'))
                .unwrap_or(rest.len());
            (Token::Name(rest[..end].to_owned()), end)
        } else {
            sign(rest, at)?
        };
        found.push((at, token));
        at += length;
    }
    found.push((text.len(), Token::End));
    Ok(found)
}

fn sign(rest: &str, at: usize) -> Parsed<(Token, usize)> {
    let ours = SIGNS.iter().find(|(sign, _)| rest.starts_with(sign));
    let foreign = FOREIGN_SIGNS
        .iter()
        .find(|(sign, _)| rest.starts_with(sign));
    match (ours, foreign) {
        // `<>` begins with a sign of ours.
        (Some((sign, token)), foreign)
            if foreign.is_none_or(|(other, _)| other.len() <= sign.len()) =>
        {
            Ok((token.clone(), sign.len()))
        }
        (_, foreign) => {
            let given: String = rest.chars().take(1).collect();
            let given = foreign.map_or(given.as_str(), |(sign, _)| sign);
            let fault = Fault::new(at, format!("`{given}` is no sign of the language"));
            Err(match foreign {
                Some((_, hint)) => fault.hint(*hint),
                None => fault,
            })
        }
    }
}

/// A text in double quotes, and how many bytes it takes.
fn quoted(rest: &str, at: usize) -> Parsed<(String, usize)> {
    let mut content = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return Ok((content, index + 1)),
            '\\' => match chars.next() {
                Some((_, c @ ('"' | '\\'))) => content.push(c),
                _ => {
                    return Err(Fault::new(
                        at + index,
                        "a backslash stands before \" or \\ alone",
                    ));
                }
            },
            c if c.is_control() => {
                return Err(Fault::new(
                    at + index,
                    "a control character cannot be in a text",
                ));
            }
            c => content.push(c),
        }
    }
    Err(Fault::new(at, "this text has no end").hint("write a double quote behind it"))
}

fn number(rest: &str, at: usize) -> Parsed<(Token, usize)> {
    let digits = rest.strip_prefix('-').unwrap_or(rest);
    let end = rest.len() - digits.len()
        + digits
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(digits.len());
    if rest[end..].starts_with('.') {
        return Err(Fault::new(at, "numbers are whole").hint("a version is written v\"14.4\""));
    }
    let number = rest[..end]
        .parse()
        .ok()
        .filter(|number| (-MOST_DAYS..=MOST_DAYS).contains(number));
    match number {
        Some(number) => Ok((Token::Number(number), end)),
        None => Err(Fault::new(
            at,
            format!("a number lies between -{MOST_DAYS} and {MOST_DAYS}"),
        )),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    /// Never beyond the last one, which is the end.
    next: usize,
    depth: usize,
}

impl Parser {
    fn whole(&mut self) -> Parsed<Expression> {
        if *self.peek() == Token::End {
            let fault = Fault::new(0, "the filter is empty");
            return Err(fault.hint("write a condition, such as os.name == \"macOS\""));
        }
        let expression = self.any()?;
        match self.take() {
            (_, Token::End) => Ok(expression),
            (at, Token::Close) => Err(Fault::new(at, "no parenthesis is open here")),
            (at, token) => {
                let hint = match &token {
                    Token::Name(word) if word.eq_ignore_ascii_case("and") => "write && for and",
                    Token::Name(word) if word.eq_ignore_ascii_case("or") => "write || for or",
                    _ => "conditions are joined by && or ||",
                };
                Err(unexpected(at, &token).hint(hint))
            }
        }
    }

    fn any(&mut self) -> Parsed<Expression> {
        let mut parts = vec![self.all()?];
        while self.skip(&Token::Or) {
            parts.push(self.all()?);
        }
        Ok(joined(parts, Expression::Any))
    }

    fn all(&mut self) -> Parsed<Expression> {
        let mut parts = vec![self.not()?];
        while self.skip(&Token::And) {
            parts.push(self.not()?);
        }
        Ok(joined(parts, Expression::All))
    }

    fn not(&mut self) -> Parsed<Expression> {
        let at = self.position();
        if self.skip(&Token::Not) {
            self.deeper(at)?;
            let inner = self.not()?;
            self.depth -= 1;
            return Ok(Expression::Not(Box::new(inner)));
        }
        if self.skip(&Token::Open) {
            self.deeper(at)?;
            let inner = self.any()?;
            self.depth -= 1;
            return match self.take() {
                (_, Token::Close) => Ok(inner),
                (end, token) => Err(unexpected(end, &token).hint("a parenthesis is still open")),
            };
        }
        self.condition().map(|condition| match condition {
            Met::Is(condition) => Expression::Is(condition),
            Met::IsNot(condition) => Expression::Not(Box::new(Expression::Is(condition))),
        })
    }

    fn deeper(&mut self, at: usize) -> Parsed<()> {
        self.depth += 1;
        if self.depth > DEEPEST {
            let problem = format!("more than {DEEPEST} parentheses and ! inside each other");
            return Err(Fault::new(at, problem));
        }
        Ok(())
    }

    fn condition(&mut self) -> Parsed<Met> {
        let field = self.field()?;
        if let (Token::Compare(comparison), Token::Name(word)) = (self.peek(), self.peek_second())
            && word == "null"
        {
            let met = match comparison {
                Comparison::Equal => Met::Is,
                Comparison::NotEqual => Met::IsNot,
                _ => {
                    let fault = Fault::new(self.position(), "null is not less and not greater");
                    return Err(fault.hint("write == null or != null"));
                }
            };
            self.next += 2;
            return Ok(met(Condition::Absent(field)));
        }
        let condition = match &field {
            Field::State => Condition::State(self.unordered(&field, Self::device_state)?),
            Field::Text(text) => Condition::Text(*text, self.test(&field, Self::text)?),
            Field::Version(version) => {
                Condition::Version(*version, self.test(&field, Self::version)?)
            }
            Field::Days(days) => Condition::Days(*days, self.test(&field, Self::number)?),
            Field::Flag(flag) => Condition::Flag(*flag, self.flag(&field)?),
            Field::Compliance(baseline) => Condition::Compliance(
                baseline.clone(),
                self.unordered(&field, Self::compliance_state)?,
            ),
        };
        Ok(Met::Is(condition))
    }

    fn field(&mut self) -> Parsed<Field> {
        let (at, token) = self.take();
        let name = match token {
            Token::Name(name) => name,
            Token::Text(_) | Token::Version(_) | Token::Number(_) => {
                let fault = Fault::new(at, format!("{token} cannot begin a condition"));
                return Err(fault.hint("the field stands on the left: os.name == \"macOS\""));
            }
            token => return Err(unexpected(at, &token).hint("a condition begins with a field")),
        };
        if name == COMPLIANCE {
            return self.compliance();
        }
        if let Some(field) = Field::named(&name) {
            return Ok(field);
        }
        let fault = Fault::new(at, format!("there is no field `{}`", short(&name)));
        if name.eq_ignore_ascii_case("not") {
            return Err(fault.hint("write ! for not"));
        }
        let known = Field::PLAIN.iter().map(Field::name).chain([COMPLIANCE]);
        Err(fault.hint(match nearest(&name, known) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "`perennial collection fields` lists them".to_owned(),
        }))
    }

    /// The baseline's name behind `compliance`.
    fn compliance(&mut self) -> Parsed<Field> {
        let write = "write compliance[\"the baseline's name\"]";
        let (at, token) = self.take();
        if token != Token::OpenList {
            return Err(unexpected(at, &token).hint(write));
        }
        let (at, token) = self.take();
        let Token::Text(name) = &token else {
            return Err(unexpected(at, &token).hint(write));
        };
        let baseline = name
            .parse()
            .map_err(|error| Fault::new(at, format!("{error}")))?;
        match self.take() {
            (_, Token::CloseList) => Ok(Field::Compliance(baseline)),
            (at, token) => Err(unexpected(at, &token).hint(write)),
        }
    }

    /// A comparison, or a list.
    fn test<T>(
        &mut self,
        field: &Field,
        value: impl Fn(&mut Self, &Field) -> Parsed<T>,
    ) -> Parsed<Test<T>> {
        match self.take() {
            (_, Token::Compare(comparison)) => Ok(Test::Compare(comparison, value(self, field)?)),
            (_, Token::Name(word)) if word == "in" => {
                let (at, token) = self.take();
                if token != Token::OpenList {
                    return Err(unexpected(at, &token).hint("a list is written [a, b]"));
                }
                let mut values = vec![value(self, field)?];
                loop {
                    match self.take() {
                        (_, Token::Comma) => values.push(value(self, field)?),
                        (_, Token::CloseList) => return Ok(Test::OneOf(values)),
                        (at, token) => {
                            let fault = unexpected(at, &token);
                            return Err(fault.hint("a list goes on with a comma or ends with ]"));
                        }
                    }
                }
            }
            (at, token) => {
                let fault = Fault::new(at, format!("after `{field}` comes {token}"));
                let example = field.help().example;
                Err(fault.hint(format!("write a comparison, such as {example}")))
            }
        }
    }

    /// The same for states, which have no order.
    fn unordered<T>(
        &mut self,
        field: &Field,
        value: impl Fn(&mut Self, &Field) -> Parsed<T>,
    ) -> Parsed<Test<T>> {
        use Comparison::{Equal, NotEqual};
        let at = self.position();
        let test = self.test(field, value)?;
        match test {
            Test::OneOf(_) | Test::Compare(Equal | NotEqual, _) => Ok(test),
            Test::Compare(..) => {
                Err(Fault::new(at, format!("`{field}` has no order")).hint("write ==, != or in"))
            }
        }
    }

    /// A field that is true or false, alone or compared.
    fn flag(&mut self, field: &Field) -> Parsed<bool> {
        let wanted = match self.peek() {
            Token::Compare(Comparison::Equal) => true,
            Token::Compare(Comparison::NotEqual) => false,
            Token::And | Token::Or | Token::Close | Token::End => return Ok(true),
            token => {
                let fault = Fault::new(self.position(), format!("after `{field}` comes {token}"));
                return Err(fault.hint(format!("write {field}, !{field} or {field} == false")));
            }
        };
        self.next += 1;
        match self.take() {
            (_, Token::Name(word)) if word == "true" => Ok(wanted),
            (_, Token::Name(word)) if word == "false" => Ok(!wanted),
            (at, token) => Err(mistyped(
                at,
                field,
                &token,
                "write true or false".to_owned(),
            )),
        }
    }

    fn device_state(&mut self, field: &Field) -> Parsed<DeviceState> {
        let states = DeviceState::ALL.iter().copied();
        self.state(
            field,
            states.filter(|state| *state != DeviceState::Deleted),
            |state| state.word(),
        )
    }

    fn compliance_state(&mut self, field: &Field) -> Parsed<ComplianceState> {
        self.state(field, ComplianceState::ALL.iter().copied(), |state| {
            state.word()
        })
    }

    /// One of `states`, as a text. Hyphens may be left out.
    fn state<S: Copy>(
        &mut self,
        field: &Field,
        states: impl Iterator<Item = S>,
        word: impl Fn(&S) -> &'static str,
    ) -> Parsed<S> {
        let (at, token) = self.take();
        let states: Vec<(S, &'static str)> = states.map(|state| (state, word(&state))).collect();
        let words: Vec<_> = states.iter().map(|(_, word)| *word).collect();
        let Token::Text(given) = &token else {
            let hint = format!("write one of \"{}\"", words.join("\", \""));
            return Err(mistyped(at, field, &token, hint));
        };
        let found = states
            .iter()
            .find(|(_, word)| word == given || word.replace('-', "") == *given);
        match found {
            Some((state, _)) => Ok(*state),
            None => Err(no_word(at, field, given, &words)),
        }
    }

    fn text(&mut self, field: &Field) -> Parsed<String> {
        let (at, token) = self.take();
        let text = match token {
            Token::Text(text) => text,
            Token::Name(name) => {
                let hint = format!("write \"{}\"", short(&name));
                return Err(mistyped(at, field, &Token::Name(name), hint));
            }
            token => {
                let hint = "texts stand in double quotes".to_owned();
                return Err(mistyped(at, field, &token, hint));
            }
        };
        if text.is_empty() {
            let fault = Fault::new(at, "no text is empty");
            return Err(fault.hint(format!("write {field} == null for what is not there")));
        }
        match field {
            // The records have one spelling.
            Field::Text(TextField::HardwareUuid) => match text.parse::<HardwareUuid>() {
                Ok(uuid) => Ok(uuid.to_string()),
                Err(error) => Err(Fault::new(at, error.to_string())),
            },
            _ => Ok(text),
        }
    }

    fn version(&mut self, field: &Field) -> Parsed<Version> {
        match self.take() {
            (_, Token::Version(version)) => Ok(version),
            (at, token) => {
                let given = match &token {
                    Token::Text(text) => text.parse::<Version>().ok(),
                    Token::Number(number) => number.to_string().parse().ok(),
                    _ => None,
                };
                let hint = match given {
                    Some(version) => format!("write v\"{version}\""),
                    None => "a version is written v\"14.4\"".to_owned(),
                };
                Err(mistyped(at, field, &token, hint))
            }
        }
    }

    fn number(&mut self, field: &Field) -> Parsed<i64> {
        match self.take() {
            (_, Token::Number(number)) => Ok(number),
            (at, token) => {
                let hint = "write a whole number, without quotes".to_owned();
                Err(mistyped(at, field, &token, hint))
            }
        }
    }

    fn position(&self) -> usize {
        self.tokens[self.next].0
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.next].1
    }

    fn peek_second(&self) -> &Token {
        &self.tokens[(self.next + 1).min(self.tokens.len() - 1)].1
    }

    fn take(&mut self) -> (usize, Token) {
        let taken = self.tokens[self.next].clone();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        taken
    }

    fn skip(&mut self, token: &Token) -> bool {
        let found = self.peek() == token;
        if found {
            self.next += 1;
        }
        found
    }
}

enum Met {
    Is(Condition),
    IsNot(Condition),
}

fn joined(mut parts: Vec<Expression>, join: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.len() {
        1 => parts.remove(0),
        _ => join(parts),
    }
}

fn unexpected(at: usize, token: &Token) -> Fault {
    Fault::new(at, format!("{token} cannot stand here"))
}

fn mistyped(at: usize, field: &Field, token: &Token, hint: String) -> Fault {
    let problem = match token {
        Token::End => format!("after `{field}` the value is missing"),
        token => format!("`{field}` is {}, and {token} is none", field.kind()),
    };
    Fault::new(at, problem).hint(hint)
}

fn no_word(at: usize, field: &Field, given: &str, known: &[&'static str]) -> Fault {
    let fault = Fault::new(at, format!("`{field}` is never \"{}\"", short(given)));
    fault.hint(match nearest(given, known.iter().copied()) {
        Some(known) => format!("did you mean \"{known}\"?"),
        None => format!("it is one of {}", known.join(", ")),
    })
}

fn nearest(given: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let given = given.to_lowercase();
    known
        .map(|known| (strsim::jaro_winkler(&given, known), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

/// Enough of a text to know it again.
fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_read_is_printed_in_one_form() {
        for (given, printed) in [
            ("os.name==\"macOS\"", "os.name == \"macOS\""),
            (
                " os.name == \"macOS\" && os.version >= v\"14.4.0\" && certificate.days_left < 45 && user.name in [\"ann\",\"bob\"]",
                "os.name == \"macOS\" && os.version >= v\"14.4.0\" && certificate.days_left < 45 && user.name in [\"ann\", \"bob\"]",
            ),
            (
                "(device.state == \"active\" || device.state == \"blocked\") && !(os.name == \"Linux\" && device.model != \"a\\\\\\\"b\")",
                "(device.state == \"active\" || device.state == \"blocked\") && !(os.name == \"Linux\" && device.model != \"a\\\\\\\"b\")",
            ),
            (
                "((certificate.days_left < -3))||!!device.trust_verified",
                "certificate.days_left < -3 || !!device.trust_verified",
            ),
            (
                "device.trust_verified != true",
                "device.trust_verified == false",
            ),
            ("device.trust_verified == true", "device.trust_verified"),
            (
                "!(device.last_seen_days_ago == null)",
                "device.last_seen_days_ago != null",
            ),
            (
                "hardware.uuid == \"4c4c4544-0042-3510-8052-b3c04f4b4e32\"",
                "hardware.uuid == \"4C4C4544-0042-3510-8052-B3C04F4B4E32\"",
            ),
            (
                "compliance [\"CIS \\\"1\\\"\"] == \"noncompliant\"",
                "compliance[\"CIS \\\"1\\\"\"] == \"non-compliant\"",
            ),
            (
                "compliance[\"A\"] in [\"error\",\"unknown\"]",
                "compliance[\"A\"] in [\"error\", \"unknown\"]",
            ),
            ("compliance[\"A\"] != null", "compliance[\"A\"] != null"),
        ] {
            let filter: Filter = given
                .parse()
                .unwrap_or_else(|error| panic!("{given}: {error}"));
            assert_eq!(filter.to_string(), printed);
            assert_eq!(printed.parse(), Ok(filter), "{printed}");
        }
    }

    #[test]
    fn every_field_has_an_example_that_can_be_read() {
        for help in Field::all_help() {
            let filter: Filter = help
                .example
                .parse()
                .unwrap_or_else(|error| panic!("{error}"));
            let name = help.name.trim_end_matches("[\"…\"]");
            assert!(help.example.contains(name), "{help:?}");
            assert_eq!(filter.to_string(), help.example);
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_a_hint() {
        let deep = format!("{}os.name == \"a\"", "!".repeat(33));
        let long = format!("os.name == \"{}\"", "a".repeat(5000));
        for (given, column, says) in [
            ("", 1, "the filter is empty; write a condition"),
            (
                "os.nme == \"macOS\"",
                1,
                "there is no field `os.nme`; did you mean `os.name`?",
            ),
            ("(OS.Version > v\"1\")", 2, "did you mean `os.version`?"),
            (
                "weather == \"wet\"",
                1,
                "`perennial collection fields` lists them",
            ),
            ("os.name = \"macOS\"", 9, "write == to compare"),
            ("os.name == 'macOS'", 12, "texts stand in double quotes"),
            (
                "os.name == macOS",
                12,
                "`os.name` is a text, and `macOS` is none; write \"macOS\"",
            ),
            ("os.name == \"macOS", 12, "this text has no end"),
            (
                "os.name == \"\"",
                12,
                "no text is empty; write os.name == null",
            ),
            (
                "os.version >= \"14.4\"",
                15,
                "`os.version` is a version, and the text \"14.4\" is none; write v\"14.4\"",
            ),
            ("os.version >= 14", 15, "write v\"14\""),
            (
                "os.version >= 14.4",
                15,
                "numbers are whole; a version is written v\"14.4\"",
            ),
            (
                "os.version >= v\"14.x\"",
                15,
                "a version is 1 to 8 numbers with dots",
            ),
            (
                "certificate.days_left < \"45\"",
                25,
                "`certificate.days_left` is a number of days, and the text \"45\" is none; write a whole number",
            ),
            (
                "certificate.days_left < 99999999",
                25,
                "a number lies between",
            ),
            ("certificate.days_left <", 24, "the value is missing"),
            (
                "certificate.days_left",
                22,
                "after `certificate.days_left` comes the end; write a comparison, such as certificate.days_left < 45",
            ),
            (
                "certificate.days_left > null",
                23,
                "write == null or != null",
            ),
            (
                "45 > certificate.days_left",
                1,
                "the field stands on the left",
            ),
            ("device.state == \"actve\"", 17, "did you mean \"active\"?"),
            (
                "device.state == \"deleted\"",
                17,
                "it is one of active, blocked, retired, obsolete",
            ),
            (
                "device.state > \"active\"",
                14,
                "`device.state` has no order; write ==, != or in",
            ),
            (
                "device.trust_verified > 1",
                23,
                "write device.trust_verified, !device.trust_verified",
            ),
            ("device.trust_verified == 1", 26, "write true or false"),
            (
                "os.name == \"a\" and os.name == \"b\"",
                16,
                "write && for and",
            ),
            (
                "os.name == \"a\" or os.name == \"b\"",
                16,
                "write || for or",
            ),
            ("not os.name == \"a\"", 1, "write ! for not"),
            (
                "os.name == \"a\" & os.name == \"b\"",
                16,
                "write && for and",
            ),
            ("os.name <> \"a\"", 9, "write != for unequal"),
            (
                "os.name == \"a\" os.name == \"b\"",
                16,
                "conditions are joined by && or ||",
            ),
            ("(os.name == \"a\"", 16, "a parenthesis is still open"),
            ("os.name == \"a\")", 15, "no parenthesis is open here"),
            ("os.name in \"a\"", 12, "a list is written [a, b]"),
            ("os.name in []", 13, "`os.name` is a text"),
            (
                "os.name in [\"a\" \"b\"]",
                17,
                "a list goes on with a comma",
            ),
            ("os.name == \"ü\" §", 16, "is no sign of the language"),
            (
                "os.name == \"a\tb\"",
                14,
                "a control character cannot be in a text",
            ),
            ("os.name == \"\\n\"", 13, "a backslash stands before"),
            (
                "compliance[\"A\"] == \"compliantt\"",
                20,
                "did you mean \"compliant\"?",
            ),
            (
                "compliance[\"A\"] > \"error\"",
                17,
                "`compliance[\"A\"]` has no order",
            ),
            (
                "compliance == \"error\"",
                12,
                "write compliance[\"the baseline's name\"]",
            ),
            (
                "compliance[\"\"] == \"error\"",
                12,
                "a baseline's name has 1",
            ),
            ("hardware.uuid == \"abc\"", 18, "is not a hardware UUID"),
            ("&& os.name == \"a\"", 1, "a condition begins with a field"),
            (&deep, 33, "more than 32"),
            (&long, 1, "longer than 4096 bytes"),
        ] {
            let error = given.parse::<Filter>().expect_err(given);
            let text = error.to_string();
            assert!(
                text.starts_with(&format!("at character {column}: ")),
                "{given}: {text}"
            );
            assert!(text.contains(says), "{given}: {text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~üv\"\\[\\]()!&|=<>.]{0,80}") {
            if let Ok(filter) = text.parse::<Filter>() {
                prop_assert_eq!(filter.to_string().parse(), Ok(filter));
            }
        }
    }
}
