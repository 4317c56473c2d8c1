//! An administrator's order: these certificates are renewed in this window.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{CollectionName, DeviceId, Period, Timestamp, Window};

/// Whose certificates an order concerns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RenewalScope {
    All,
    Collection(CollectionName),
    Device(DeviceId),
}

impl fmt::Display for RenewalScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.pad("all devices"),
            Self::Collection(name) => write!(f, "collection {name}"),
            Self::Device(device) => write!(f, "device {}", device.smsid()),
        }
    }
}

/// The shortest and the longest span of an order's window.
const SHORTEST: Period = Period::from_seconds(60);
const LONGEST: Period = Period::from_days(90);
/// How far from now an order's window may begin, in either direction.
const FARTHEST: Period = Period::from_days(3650);

/// What was given is no window for an order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrder {
    #[error("a renewal window spreads over 1m to 90d")]
    Spread,
    #[error("a renewal window begins within ten years from now")]
    Start,
}

impl Window {
    /// The window of an order that is made `now`.
    ///
    /// # Errors
    /// When it is too short, too long, or too far away.
    pub fn of_order(
        start: Timestamp,
        spread: Period,
        now: Timestamp,
    ) -> Result<Self, InvalidOrder> {
        if spread < SHORTEST || spread > LONGEST {
            return Err(InvalidOrder::Spread);
        }
        if start.duration_since(now).abs() > FARTHEST.duration() {
            return Err(InvalidOrder::Start);
        }
        Ok(Self {
            start,
            end: start + spread.duration(),
        })
    }

    /// The window of a certificate whose own one is `self`, under an order. An order brings the
    /// renewal forward, or back inside the certificate's own window; it never brings it beyond the
    /// own window's end, so that no order makes a certificate expire.
    pub fn moved_to(self, ordered: Self) -> Self {
        if ordered.start >= self.end {
            return self;
        }
        Self {
            start: ordered.start,
            end: ordered.end.min(self.end),
        }
    }
}

/// Where people read why their certificates are renewed earlier: a web address of at most 512
/// characters (`explanationURL` of RFC 9773 section 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplanationUrl(String);

/// What was given is no such address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an explanation's address begins with https:// or http://, and has at most 512 characters of ASCII without spaces"
)]
pub struct InvalidExplanationUrl;

impl ExplanationUrl {
    const MOST: usize = 512;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ExplanationUrl {
    type Err = InvalidExplanationUrl;

    fn from_str(given: &str) -> Result<Self, InvalidExplanationUrl> {
        let rest = given
            .strip_prefix("https://")
            .or_else(|| given.strip_prefix("http://"))
            .ok_or(InvalidExplanationUrl)?;
        let plain = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
        let host = rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
        if !host || given.len() > Self::MOST || !rest.chars().all(plain) {
            return Err(InvalidExplanationUrl);
        }
        Ok(Self(given.to_owned()))
    }
}

impl fmt::Display for ExplanationUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

crate::serde_as_text!(ExplanationUrl);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_700_000_000, 0);

    fn window(start: i64, end: i64) -> Window {
        let at = |seconds| Timestamp::from_second(1_700_000_000 + seconds).expect("a moment");
        Window {
            start: at(start),
            end: at(end),
        }
    }

    #[test]
    fn an_order_moves_a_window_and_never_beyond_its_end() {
        let own = window(1000, 2000);
        for (ordered, moved) in [
            (window(-500, -400), window(-500, -400)),
            (window(0, 100), window(0, 100)),
            (window(500, 1500), window(500, 1500)),
            (window(1500, 9000), window(1500, 2000)),
            (window(2000, 2100), own),
            (window(9000, 9900), own),
        ] {
            assert_eq!(own.moved_to(ordered), moved, "{ordered:?}");
        }
    }

    #[test]
    fn an_order_has_bounds() {
        let day = Period::from_days(1);
        assert_eq!(
            Window::of_order(NOW, day, NOW),
            Ok(window(0, 86_400)),
            "from now on"
        );
        let past = NOW - day.duration();
        assert!(Window::of_order(past, day, NOW).is_ok());
        for seconds in [0, 59, 90 * 86_400 + 1] {
            let spread = Period::from_seconds(seconds);
            assert_eq!(
                Window::of_order(NOW, spread, NOW),
                Err(InvalidOrder::Spread)
            );
        }
        for start in [Timestamp::MIN, Timestamp::MAX] {
            assert_eq!(Window::of_order(start, day, NOW), Err(InvalidOrder::Start));
        }
    }

    #[test]
    fn an_explanation_is_a_web_address() {
        for good in ["https://example.com/why?n=1", "http://[::1]/", "https://a"] {
            assert!(good.parse::<ExplanationUrl>().is_ok(), "{good}");
        }
        let long = format!("https://{}", "a".repeat(505));
        for bad in [
            "",
            "https://",
            "https:///why",
            "javascript:alert(1)",
            "https://a b",
            "https://a\n",
            "https://ä",
            "https://a\"><script>",
            &long,
        ] {
            assert_eq!(
                bad.parse::<ExplanationUrl>(),
                Err(InvalidExplanationUrl),
                "{bad:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_moved_window_is_never_empty_and_never_ends_later(
            start in -100_000i64..100_000, length in 1i64..100_000,
            ordered in -300_000i64..300_000, spread in 60i64..100_000,
        ) {
            let own = window(start, start + length);
            let moved = own.moved_to(window(ordered, ordered + spread));
            prop_assert!(moved.start < moved.end && moved.end <= own.end);
        }
    }
}
