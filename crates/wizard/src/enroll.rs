//! The enrollment wizard: user name, password and server, and the server's fingerprint where an
//! administrator has to confirm it.

use domain::Timestamp;
use domain::wizard::{Failed, RenewalFailure};
use egui::{Key, Ui};
use protocol::{Credentials, EnrollmentRequest, LocalStatus, RenewalStep};

use crate::renew::{Wish, submits};
use crate::scene::{self, Details, Scene};
use crate::secret::Secret;
use crate::widgets::{self, Action, Field, Tone};
use crate::worker::{Ask, News};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnrollPage {
    Welcome,
    Credentials,
    Progress,
    /// The server is not trusted yet. Holds its fingerprint.
    Trust(String),
    Failed(Failed),
    Done {
        not_after: Timestamp,
    },
    /// The agent does not answer. Holds the page to come back to.
    Waiting(Box<EnrollPage>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Continue,
    Back,
    Submit,
    Confirm,
    Close,
}

pub struct Enroll {
    page: EnrollPage,
    user: String,
    password: Secret,
    server: String,
    /// The person typed the server, so it is not filled in any more.
    server_is_typed: bool,
    /// Confirmed by a person: the server, and its fingerprint.
    confirmed: Option<(String, String)>,
    /// Something went wrong since: that it is confirmed is no news.
    was_refused: bool,
    missing: Option<Missing>,
    at: Option<RenewalStep>,
    details: Details,
    entered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    User,
    Server,
    Password,
}

impl Enroll {
    pub fn open(status: &LocalStatus) -> Self {
        Self {
            page: EnrollPage::Welcome,
            user: session_user(),
            password: Secret::default(),
            server: status.managed_server.clone().unwrap_or_default(),
            server_is_typed: false,
            confirmed: None,
            was_refused: false,
            missing: None,
            at: None,
            details: Details::default(),
            entered: true,
        }
    }

    pub fn page(&self) -> &EnrollPage {
        &self.page
    }

    pub fn hear(&mut self, news: &News) {
        match news {
            News::Away
                if !matches!(self.page, EnrollPage::Waiting(_) | EnrollPage::Done { .. }) =>
            {
                let before = match self.page.clone() {
                    // Its answer is lost.
                    EnrollPage::Progress => EnrollPage::Credentials,
                    page => page,
                };
                self.go(EnrollPage::Waiting(Box::new(before)));
            }
            News::Status(status) => {
                if self.server.is_empty() {
                    self.server = status.managed_server.clone().unwrap_or_default();
                }
                if let EnrollPage::Waiting(before) = &self.page {
                    self.go((**before).clone());
                }
            }
            News::Step(step) if self.page == EnrollPage::Progress => match step {
                RenewalStep::Renewed { not_after } => {
                    let not_after = *not_after;
                    self.go(EnrollPage::Done { not_after });
                }
                RenewalStep::Refused {
                    failure: RenewalFailure::NotTrusted,
                    observed: Some(observed),
                    ..
                } => self.go(EnrollPage::Trust(observed.clone())),
                RenewalStep::Refused {
                    failure, detail, ..
                } => {
                    self.was_refused = true;
                    self.go(EnrollPage::Failed(Failed {
                        failure: *failure,
                        detail: detail.clone(),
                    }));
                }
                step => self.at = Some(step.clone()),
            },
            _ => {}
        }
    }

    fn go(&mut self, page: EnrollPage) {
        self.password.forget();
        self.page = page;
        self.missing = None;
        self.entered = true;
        self.details = Details::default();
    }

    fn take(&mut self, event: Event, may_choose: bool) -> Option<Wish> {
        match (&self.page, event) {
            (_, Event::Close) => return Some(Wish::Close),
            (EnrollPage::Welcome, Event::Continue) => self.go(EnrollPage::Credentials),
            (EnrollPage::Credentials, Event::Back) => self.go(EnrollPage::Welcome),
            (EnrollPage::Failed(_), Event::Continue) | (EnrollPage::Trust(_), Event::Back) => {
                self.go(EnrollPage::Credentials);
            }
            (EnrollPage::Trust(observed), Event::Confirm) => {
                self.confirmed = Some((self.server.trim().to_owned(), observed.clone()));
                self.was_refused = false;
                self.go(EnrollPage::Credentials);
            }
            (EnrollPage::Credentials, Event::Submit) => return self.submit(may_choose),
            _ => {}
        }
        None
    }

    fn submit(&mut self, may_choose: bool) -> Option<Wish> {
        let user = self.user.trim().to_owned();
        let server = self.server.trim().to_owned();
        self.missing = if user.is_empty() {
            Some(Missing::User)
        } else if server.is_empty() {
            Some(Missing::Server)
        } else if self.password.is_empty() {
            Some(Missing::Password)
        } else {
            None
        };
        if self.missing.is_some() {
            self.entered = true;
            return None;
        }
        let password = self.password.take_out();
        // What a person confirmed is for that server, and for no other one.
        let confirmed = self.confirmed.as_ref();
        let pin = confirmed.filter(|(of, _)| *of == server);
        let request = EnrollmentRequest {
            credentials: Credentials { user, password },
            pin: pin.map(|(_, pin)| pin.clone()),
            server: may_choose.then_some(server),
        };
        self.at = None;
        self.go(EnrollPage::Progress);
        Some(Wish::Ask(Ask::Enroll(request)))
    }

    pub fn show(&mut self, ui: &mut Ui, scene: &Scene<'_>) -> Option<Wish> {
        let entered = std::mem::take(&mut self.entered);
        let may_choose = scene.status.may_choose_server;
        let event = match self.page.clone() {
            EnrollPage::Welcome => welcome(ui, scene, entered),
            EnrollPage::Credentials => self.credentials(ui, scene, entered),
            EnrollPage::Progress => {
                let words = scene.words;
                let head = scene.head(words.enrolling_title(), words.progress_subtitle());
                widgets::page::<Event>(ui, &head, &[], entered, |ui| {
                    widgets::card(ui, |ui| scene::steps(ui, words, self.at.as_ref()));
                })
            }
            EnrollPage::Trust(observed) => self.trust(ui, scene, entered, &observed),
            EnrollPage::Failed(failed) => {
                let words = scene.words;
                let actions = [
                    Action::aside(words.close(), Event::Close),
                    Action::primary(words.try_again(), Event::Continue),
                ];
                let head = scene.head(words.failed_title(), "");
                let details = &mut self.details;
                // It belongs to no server yet.
                let said = match failed.failure {
                    RenewalFailure::NotTrusted => {
                        (words.not_trusted_yet(), words.not_trusted_yet_act())
                    }
                    failure => words.failure(failure),
                };
                widgets::page(ui, &head, &actions, entered, |ui| {
                    scene::failed(ui, scene, &failed, said, words.nothing_changed(), details);
                })
            }
            EnrollPage::Done { not_after } => done(ui, scene, entered, not_after),
            EnrollPage::Waiting(_) => scene::waiting(ui, scene, Event::Close, entered),
        };
        event.and_then(|event| self.take(event, may_choose))
    }

    fn credentials(&mut self, ui: &mut Ui, scene: &Scene<'_>, entered: bool) -> Option<Event> {
        let words = scene.words;
        let may_choose = scene.status.may_choose_server;
        let actions = [
            Action::aside(words.close(), Event::Close),
            Action::secondary(words.back(), Event::Back),
            Action::primary(words.enroll(), Event::Submit),
        ];
        let head = scene.head(words.sign_in_title(), words.sign_in_subtitle());
        let confirmed = self.confirmed.as_ref();
        let is_confirmed =
            !self.was_refused && confirmed.is_some_and(|(of, _)| of == self.server.trim());
        let mut submitted = false;
        let pressed = widgets::page(ui, &head, &actions, false, |ui| {
            if is_confirmed {
                widgets::banner(ui, Tone::Good, words.trust_confirmed());
                ui.add_space(6.0);
            }
            widgets::card(ui, |ui| {
                let missing = |this: Missing, words: &'static str| {
                    (self.missing == Some(this)).then_some(words)
                };
                let no_user = missing(Missing::User, words.user_is_missing());
                let no_server = missing(Missing::Server, words.server_is_missing());
                let no_password = missing(Missing::Password, words.password_is_missing());
                let user = Field::new("user", words.user_name())
                    .error(no_user)
                    .show(ui, &mut self.user);
                if user.changed() && may_choose && !self.server_is_typed {
                    self.server = server_for(&self.user, scene.status);
                }
                ui.add_space(8.0);
                let password = Field::new("password", words.password())
                    .password()
                    .note(words.used_once())
                    .error(no_password)
                    .show(ui, &mut self.password);
                ui.add_space(8.0);
                let mut field = Field::new("server", words.server_name())
                    .read_only(!may_choose)
                    .error(no_server);
                if !may_choose {
                    field = field.note(words.server_is_fixed());
                }
                let server = field.show(ui, &mut self.server);
                self.server_is_typed |= server.changed();
                if user.changed() || password.changed() || server.changed() {
                    self.missing = None;
                }
                if entered {
                    let first = match self.missing {
                        Some(Missing::User) => &user,
                        Some(Missing::Server) => &server,
                        Some(Missing::Password) => &password,
                        None if self.user.is_empty() => &user,
                        None => &password,
                    };
                    widgets::take_focus(first);
                }
                submitted = submits(ui, &user) || submits(ui, &password) || submits(ui, &server);
            });
        });
        // Enter on a button presses it, and no field had the focus.
        let enter = submitted && ui.input(|input| input.key_pressed(Key::Enter));
        pressed.or(enter.then_some(Event::Submit))
    }

    fn trust(
        &mut self,
        ui: &mut Ui,
        scene: &Scene<'_>,
        entered: bool,
        observed: &str,
    ) -> Option<Event> {
        let words = scene.words;
        let may_choose = scene.status.may_choose_server;
        let mut actions = vec![Action::secondary(words.back(), Event::Back)];
        if may_choose {
            actions.insert(0, Action::aside(words.close(), Event::Close));
            // Not what Enter does: somebody has to compare first.
            actions.push(Action::secondary(words.confirm(), Event::Confirm));
        } else {
            actions.push(Action::primary(words.close(), Event::Close));
        }
        let head = scene.head(words.trust_title(), words.trust_subtitle());
        widgets::page(ui, &head, &actions, entered, |ui| {
            widgets::card(ui, |ui| {
                let sentence = if may_choose {
                    words.trust()
                } else {
                    words.trust_by_administrator()
                };
                widgets::marked(ui, Tone::Warning, |ui| {
                    let shown = widgets::body(ui, sentence);
                    widgets::announce(ui, &shown, sentence, true);
                });
                ui.add_space(8.0);
                widgets::row(ui, words.server_name(), &self.server);
                widgets::small(ui, words.fingerprint());
                widgets::code(ui, &grouped(observed));
                let copy = self.details.copy(ui, words, observed);
                if entered {
                    widgets::take_focus(&copy);
                }
            });
        })
    }
}

fn welcome(ui: &mut Ui, scene: &Scene<'_>, entered: bool) -> Option<Event> {
    let words = scene.words;
    let status = scene.status;
    let possible = status.may_choose_server || status.managed_server.is_some();
    let mut actions = vec![Action::aside(words.close(), Event::Close)];
    if possible {
        actions.push(Action::primary(words.continue_(), Event::Continue));
    }
    let head = scene.head(words.welcome_title(), words.welcome_subtitle());
    widgets::page(ui, &head, &actions, entered, |ui| {
        widgets::card(ui, |ui| {
            widgets::body(ui, &words.welcome());
            ui.add_space(8.0);
            if possible {
                widgets::numbered(ui, 1, words.welcome_1());
                widgets::numbered(ui, 2, words.welcome_2());
                widgets::numbered(ui, 3, words.welcome_3());
            } else {
                widgets::marked(ui, Tone::Warning, |ui| {
                    let shown = widgets::body(ui, words.no_server());
                    widgets::announce(ui, &shown, words.no_server(), true);
                });
                widgets::code(ui, "sudo perennial-agent enroll -s SERVER -u USER");
            }
        });
    })
}

fn done(ui: &mut Ui, scene: &Scene<'_>, entered: bool, not_after: Timestamp) -> Option<Event> {
    let words = scene.words;
    let actions = [Action::primary(words.close(), Event::Close)];
    let head = scene.head(words.enrolled_title(), words.enrolled_subtitle());
    widgets::page(ui, &head, &actions, entered, |ui| {
        scene::new_certificate(ui, scene, not_after, |_| ());
    })
}

/// The managed server, or the domain of a name that looks like an address of mail.
fn server_for(user: &str, status: &LocalStatus) -> String {
    if let Some(managed) = &status.managed_server {
        return managed.clone();
    }
    match user.trim().rsplit_once('@') {
        Some((name, domain)) if !name.is_empty() && domain.contains('.') => domain.to_lowercase(),
        _ => String::new(),
    }
}

/// In fours on lines of half of it, so that two people can compare it.
fn grouped(fingerprint: &str) -> String {
    let letters: Vec<char> = fingerprint.chars().collect();
    let groups = letters
        .chunks(4)
        .map(|group| group.iter().collect::<String>());
    let groups: Vec<_> = groups.collect();
    let lines = groups.chunks(8).map(|line| line.join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

/// Root enrolls for somebody else.
fn session_user() -> String {
    let user = std::env::var("USER").unwrap_or_default();
    if user == "root" { String::new() } else { user }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Look;

    #[test]
    fn a_name_like_an_address_fills_in_the_server() {
        let mut status = LocalStatus {
            agent_version: "1".to_owned(),
            now: Timestamp::UNIX_EPOCH,
            identity: None,
            look: Look::default(),
            may_choose_server: true,
            managed_server: None,
        };
        for (user, server) in [
            ("ann", ""),
            ("ann@", ""),
            ("@example.com", ""),
            ("ann@localhost", ""),
            ("ann@Example.com", "example.com"),
            (" ann@b@example.com ", "example.com"),
        ] {
            assert_eq!(server_for(user, &status), server, "{user}");
        }
        status.managed_server = Some("site.contoso.com".to_owned());
        assert_eq!(server_for("ann@example.com", &status), "site.contoso.com");
    }

    #[test]
    fn fingerprints_are_in_fours() {
        assert_eq!(grouped("abcdefghij"), "abcd efgh ij");
        let [first, second] = [grouped(&"a".repeat(32)), grouped(&"b".repeat(32))];
        assert_eq!(
            grouped(&format!("{}{}", "a".repeat(32), "b".repeat(32))),
            format!("{first}\n{second}")
        );
    }
}
