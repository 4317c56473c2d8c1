//! The Renew Certificate Wizard as a state machine, without any toolkit: windows and terminals show
//! its page, tell it what happened, and do what it asks for. It never holds a password.
//!
//! ```text
//! Notice ──continue──▶ Credentials ──submit──▶ Progress ──renewed──▶ Done
//!   │  ◀────back────────┘    ▲                    │
//!   │                        └──try again── Failed ◀──refused──┘
//!   └─ later, close (on each page): put off ──▶ Closed
//!
//! The site is not reachable: Offline instead of Credentials, until it is.
//! The agent is away:         Waiting, and then the page before it.
//! Renewed meanwhile, silently or by another wizard: Done, on every page.
//! ```

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ReminderStage;
use crate::state::words;

words! {
    /// Why a renewal with a password did not succeed, in kinds that a person can act on.
    RenewalFailure {
        WrongPassword = "wrong-password",
        /// Too many wrong passwords, or too many requests: waiting helps.
        TooMany = "too-many",
        /// The agent is at work on something else, and the site was not asked.
        Busy = "busy",
        /// The directory or the site does not allow it: an administrator can help.
        NotAllowed = "not-allowed",
        /// Trying again by itself goes on.
        SiteUnreachable = "site-unreachable",
        /// It is not the site that this computer belongs to.
        NotTrusted = "not-trusted",
        Other = "other",
    }
}

/// What the wizard shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// What will stop working, and when.
    Notice,
    /// User name and server are filled in; the password is asked for.
    Credentials,
    /// No password page that cannot work: connect to the network first.
    Offline,
    Progress,
    Done {
        not_after: Timestamp,
        /// It was not this wizard that renewed.
        meanwhile: bool,
    },
    Failed(Failed),
    /// The agent does not answer. Holds the page to come back to.
    Waiting(Box<Page>),
    /// The end.
    Closed {
        renewed: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    pub failure: RenewalFailure,
    /// For the help desk, folded away.
    pub detail: String,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Continue,
    Back,
    /// The person gave a password. It goes to the agent and not into this machine; an empty one is
    /// not submitted.
    Submit,
    TryAgain,
    Later,
    /// Closing the window is the same as putting it off.
    Close,
    /// The agent's answer to this wizard's request.
    Renewed {
        not_after: Timestamp,
    },
    Refused(Failed),
    /// The agent says that a newer certificate is in use: silently, or by another wizard.
    RenewedMeanwhile {
        not_after: Timestamp,
    },
    SiteReachable(bool),
    AgentGone,
    AgentBack,
}

/// What the wizard's view has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Hand user name and password to the agent, once, and forget the password.
    AskAgent,
    /// Tell the agent that the person put it off.
    PutOff,
    Exit,
}

/// The wizard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wizard {
    page: Page,
    context: Context,
}

/// What the wizard is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    pub stage: ReminderStage,
    pub not_after: Timestamp,
    pub user: String,
    pub server: String,
    /// How often it was put off in the second period.
    pub put_off: u32,
    pub site_reachable: bool,
}

impl Wizard {
    pub fn open(context: Context) -> Self {
        Self {
            page: Page::Notice,
            context,
        }
    }

    pub fn page(&self) -> &Page {
        &self.page
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Takes an event. One that means nothing on the present page changes nothing: events of a
    /// person and of the agent cross on their way.
    pub fn take(&mut self, event: Event) -> Option<Effect> {
        if let Event::SiteReachable(reachable) = event {
            self.context.site_reachable = reachable;
        }
        let page = std::mem::replace(&mut self.page, Page::Notice);
        let (page, effect) = self.next(page, event);
        self.page = page;
        effect
    }

    fn next(&self, page: Page, event: Event) -> (Page, Option<Effect>) {
        match (page, event) {
            // The end, whatever comes.
            (page @ Page::Closed { .. }, _) => (page, None),
            (Page::Done { .. }, Event::Continue | Event::Later | Event::Close) => {
                (Page::Closed { renewed: true }, Some(Effect::Exit))
            }
            (page @ Page::Done { .. }, _) => (page, None),

            (_, Event::RenewedMeanwhile { not_after }) => {
                let meanwhile = true;
                (
                    Page::Done {
                        not_after,
                        meanwhile,
                    },
                    None,
                )
            }
            (_, Event::Later | Event::Close) => {
                (Page::Closed { renewed: false }, Some(Effect::PutOff))
            }

            (Page::Waiting(before), Event::AgentBack) => match *before {
                // Its answer is lost, the password is gone: the person is asked again. And the
                // network may have gone meanwhile, too.
                Page::Progress | Page::Credentials | Page::Offline => (self.ask(), None),
                before => (before, None),
            },
            (page @ Page::Waiting(_), _) => (page, None),
            (page, Event::AgentGone) => (Page::Waiting(Box::new(page)), None),

            (Page::Notice, Event::Continue) => (self.ask(), None),
            (Page::Credentials | Page::Offline, Event::Back) => (Page::Notice, None),
            (Page::Credentials, Event::Submit) => (Page::Progress, Some(Effect::AskAgent)),
            (Page::Credentials | Page::Offline, Event::SiteReachable(_)) => (self.ask(), None),
            (Page::Offline, Event::TryAgain | Event::Continue) => (self.ask(), None),

            (Page::Progress, Event::Renewed { not_after }) => {
                let meanwhile = false;
                (
                    Page::Done {
                        not_after,
                        meanwhile,
                    },
                    None,
                )
            }
            (Page::Progress, Event::Refused(failed)) => (Page::Failed(failed), None),
            (Page::Failed(_), Event::TryAgain) => (self.ask(), None),
            (page, _) => (page, None),
        }
    }

    fn ask(&self) -> Page {
        if self.context.site_reachable {
            Page::Credentials
        } else {
            Page::Offline
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const END: Timestamp = Timestamp::constant(1_800_000_000, 0);
    const LATER: Timestamp = Timestamp::constant(1_831_536_000, 0);

    fn wizard(site_reachable: bool) -> Wizard {
        Wizard::open(Context {
            stage: ReminderStage::FirstPeriod,
            not_after: END,
            user: "ann".to_owned(),
            server: "site.example.com:8444".to_owned(),
            put_off: 0,
            site_reachable,
        })
    }

    fn failed(failure: RenewalFailure) -> Failed {
        Failed {
            failure,
            detail: "the user name or the password is wrong".to_owned(),
        }
    }

    fn walk(events: &[Event], reachable: bool) -> (Wizard, Vec<Option<Effect>>) {
        let mut wizard = wizard(reachable);
        let effects = events
            .iter()
            .map(|event| wizard.take(event.clone()))
            .collect();
        (wizard, effects)
    }

    #[test]
    fn a_person_renews() {
        let events = [
            Event::Continue,
            Event::Submit,
            Event::Renewed { not_after: LATER },
            Event::Continue,
        ];
        let (wizard, effects) = walk(&events, true);
        assert_eq!(*wizard.page(), Page::Closed { renewed: true });
        assert_eq!(
            effects,
            [None, Some(Effect::AskAgent), None, Some(Effect::Exit)]
        );
    }

    #[test]
    fn a_wrong_password_is_asked_for_again() {
        let refused = failed(RenewalFailure::WrongPassword);
        let (mut wizard, _) = walk(
            &[
                Event::Continue,
                Event::Submit,
                Event::Refused(refused.clone()),
            ],
            true,
        );
        assert_eq!(*wizard.page(), Page::Failed(refused));
        wizard.take(Event::TryAgain);
        assert_eq!(*wizard.page(), Page::Credentials);
        assert_eq!(wizard.take(Event::Submit), Some(Effect::AskAgent));
    }

    #[test]
    fn without_the_site_there_is_no_password_page() {
        let (mut wizard, _) = walk(&[Event::Continue], false);
        assert_eq!(*wizard.page(), Page::Offline);
        assert_eq!(wizard.take(Event::Submit), None);
        wizard.take(Event::SiteReachable(true));
        assert_eq!(*wizard.page(), Page::Credentials);
        wizard.take(Event::SiteReachable(false));
        assert_eq!(*wizard.page(), Page::Offline);
    }

    #[test]
    fn the_agent_goes_and_comes_back() {
        let (mut wizard, _) = walk(&[Event::Continue, Event::AgentGone], true);
        assert_eq!(*wizard.page(), Page::Waiting(Box::new(Page::Credentials)));
        assert_eq!(
            wizard.take(Event::Submit),
            None,
            "nobody is there to take it"
        );
        wizard.take(Event::AgentBack);
        assert_eq!(*wizard.page(), Page::Credentials);
        // In the middle of a renewal: its answer is lost.
        let (mut wizard, _) = walk(&[Event::Continue, Event::Submit, Event::AgentGone], true);
        wizard.take(Event::AgentGone);
        wizard.take(Event::AgentBack);
        assert_eq!(*wizard.page(), Page::Credentials);
    }

    /// Every page that is open.
    fn pages() -> Vec<Page> {
        let failures = RenewalFailure::ALL.iter();
        let mut pages: Vec<_> = failures
            .map(|failure| Page::Failed(failed(*failure)))
            .collect();
        pages.extend([
            Page::Notice,
            Page::Credentials,
            Page::Offline,
            Page::Progress,
            Page::Waiting(Box::new(Page::Credentials)),
            Page::Waiting(Box::new(Page::Progress)),
        ]);
        pages
    }

    fn at(page: Page) -> Wizard {
        Wizard {
            page,
            ..wizard(true)
        }
    }

    #[test]
    fn on_every_open_page_it_can_be_put_off_and_ends_when_it_was_renewed_meanwhile() {
        for page in pages() {
            for event in [Event::Later, Event::Close] {
                let mut wizard = at(page.clone());
                assert_eq!(wizard.take(event), Some(Effect::PutOff), "{page:?}");
                assert_eq!(*wizard.page(), Page::Closed { renewed: false });
            }
            let mut wizard = at(page.clone());
            assert_eq!(
                wizard.take(Event::RenewedMeanwhile { not_after: LATER }),
                None
            );
            let done = Page::Done {
                not_after: LATER,
                meanwhile: true,
            };
            assert_eq!(*wizard.page(), done, "{page:?}");
            // A late answer of the agent changes nothing any more.
            wizard.take(Event::Refused(failed(RenewalFailure::Other)));
            assert_eq!(*wizard.page(), done);
            assert_eq!(
                wizard.take(Event::Later),
                Some(Effect::Exit),
                "there is nothing to put off"
            );
        }
    }

    /// Each page with each event: the page after it, with `!` where the agent is asked, `-` where it is put
    /// off, `x` at the end; a dot where nothing changes. The site is reachable.
    const TABLE: &str = "
                 Continue Back   Submit    TryAgain Later    Close    Renewed Refused RenewedMeanwhile SiteGone SiteBack AgentGone AgentBack
        Notice   Password .      .         .        Closed-  Closed-  .       .       Done             .        .        Waiting   .
        Password .        Notice Progress! .        Closed-  Closed-  .       .       Done             Offline  .        Waiting   .
        Offline  Password Notice .         Password Closed-  Closed-  .       .       Done             .        Password Waiting   .
        Progress .        .      .         .        Closed-  Closed-  Done    Failed  Done             .        .        Waiting   .
        Failed   .        .      .         Password Closed-  Closed-  .       .       Done             .        .        Waiting   .
        Waiting  .        .      .         .        Closed-  Closed-  .       .       Done             .        .        .         Password
        Done     Closedx  .      .         .        Closedx  Closedx  .       .       .                .        .        .         .
        Closed   .        .      .         .        .        .        .       .       .                .        .        .         .";

    fn named(name: &str) -> Page {
        match name {
            "Notice" => Page::Notice,
            "Password" => Page::Credentials,
            "Offline" => Page::Offline,
            "Progress" => Page::Progress,
            "Failed" => Page::Failed(failed(RenewalFailure::WrongPassword)),
            "Waiting" => Page::Waiting(Box::new(Page::Credentials)),
            "Done" => Page::Done {
                not_after: LATER,
                meanwhile: false,
            },
            "Closed" => Page::Closed { renewed: false },
            name => panic!("no page {name}"),
        }
    }

    fn name(page: &Page) -> &'static str {
        match page {
            Page::Notice => "Notice",
            Page::Credentials => "Password",
            Page::Offline => "Offline",
            Page::Progress => "Progress",
            Page::Failed(_) => "Failed",
            Page::Waiting(_) => "Waiting",
            Page::Done { .. } => "Done",
            Page::Closed { .. } => "Closed",
        }
    }

    #[test]
    fn every_page_with_every_event() {
        let event = |name: &str| match name {
            "Continue" => Event::Continue,
            "Back" => Event::Back,
            "Submit" => Event::Submit,
            "TryAgain" => Event::TryAgain,
            "Later" => Event::Later,
            "Close" => Event::Close,
            "Renewed" => Event::Renewed { not_after: LATER },
            "Refused" => Event::Refused(failed(RenewalFailure::WrongPassword)),
            "RenewedMeanwhile" => Event::RenewedMeanwhile { not_after: LATER },
            "SiteGone" => Event::SiteReachable(false),
            "SiteBack" => Event::SiteReachable(true),
            "AgentGone" => Event::AgentGone,
            "AgentBack" => Event::AgentBack,
            name => panic!("no event {name}"),
        };
        let mut lines = TABLE.lines().skip(1).map(str::split_whitespace);
        let events: Vec<&str> = lines.next().expect("events").collect();
        let mut seen = 0;
        for mut line in lines {
            let page = line.next().expect("a page");
            for (told, expected) in events.iter().zip(line) {
                let mut wizard = at(named(page));
                let before = wizard.page().clone();
                let effect = match wizard.take(event(told)) {
                    None => "",
                    Some(Effect::AskAgent) => "!",
                    Some(Effect::PutOff) => "-",
                    Some(Effect::Exit) => "x",
                };
                let found = match *wizard.page() == before && effect.is_empty() {
                    true => ".".to_owned(),
                    false => format!("{}{effect}", name(wizard.page())),
                };
                assert_eq!(found, expected, "{page}, {told}");
                seen += 1;
            }
        }
        assert_eq!(seen, 8 * 13);
    }

    #[test]
    fn two_wizards_at_once_end_together() {
        let (mut one, _) = walk(
            &[
                Event::Continue,
                Event::Submit,
                Event::Renewed { not_after: LATER },
            ],
            true,
        );
        let (mut other, _) = walk(&[Event::Continue, Event::Submit], true);
        // The other one's request comes second: the agent tells it what holds now.
        other.take(Event::RenewedMeanwhile { not_after: LATER });
        assert_eq!(one.take(Event::Close), Some(Effect::Exit));
        assert_eq!(other.take(Event::Close), Some(Effect::Exit));
    }

    fn an_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Continue),
            Just(Event::Back),
            Just(Event::Submit),
            Just(Event::TryAgain),
            Just(Event::Later),
            Just(Event::Close),
            Just(Event::Renewed { not_after: LATER }),
            Just(Event::Refused(failed(RenewalFailure::WrongPassword))),
            Just(Event::RenewedMeanwhile { not_after: LATER }),
            any::<bool>().prop_map(Event::SiteReachable),
            Just(Event::AgentGone),
            Just(Event::AgentBack),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_it_asks_the_agent_only_from_the_password_page_and_ends_once(
            events in proptest::collection::vec(an_event(), 0..40), reachable: bool,
        ) {
            let mut wizard = wizard(reachable);
            let mut ends = 0;
            for event in events {
                let before = wizard.page().clone();
                match wizard.take(event) {
                    Some(Effect::AskAgent) => prop_assert_eq!(before, Page::Credentials),
                    Some(Effect::PutOff | Effect::Exit) => ends += 1,
                    None => {}
                }
                // Waiting never holds a page that waits.
                let nested = matches!(wizard.page(), Page::Waiting(page) if matches!(**page, Page::Waiting(_) | Page::Closed { .. } | Page::Done { .. }));
                prop_assert!(!nested);
                let useless = *wizard.page() == Page::Credentials && !wizard.context().site_reachable;
                prop_assert!(!useless);
            }
            let closed = matches!(wizard.page(), Page::Closed { .. });
            prop_assert_eq!(ends, u32::from(closed));
        }
    }
}
