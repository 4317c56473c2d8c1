//! The Renew Certificate Wizard in a window. `domain::wizard` decides the page; this shows it, and does
//! what it asks for.

use std::time::{Duration, Instant};

use domain::ReminderStage;
use domain::wizard::{Context, Effect, Event, Failed, Page, RenewalFailure, Wizard};
use egui::{Key, Ui};
use protocol::{Credentials, LocalEvent, LocalIdentity, RenewalStep};

use crate::scene::{self, Details, Scene};
use crate::secret::Secret;
use crate::widgets::{self, Action, Field, Tone};
use crate::worker::{Ask, News};

/// How long "already renewed" is to be read.
const READING: Duration = Duration::from_secs(20);

/// What the wizard wants of its window.
#[derive(Debug)]
pub enum Wish {
    Ask(Ask),
    /// The person put it off: tell the agent, and close.
    PutOff,
    Close,
}

pub struct Renew {
    wizard: Wizard,
    user: String,
    password: Secret,
    password_missing: bool,
    /// Where the agent is with it.
    at: Option<RenewalStep>,
    details: Details,
    /// The page is new: the focus goes where most people need it.
    entered: bool,
    /// Somebody looks whether the site is there.
    probing: bool,
    /// When the page that says "already renewed" closes.
    closes_at: Option<Instant>,
    /// A reminder waits for an answer; else somebody just chose to renew, and nothing is put off.
    reminds: bool,
}

impl Renew {
    pub fn open(identity: &LocalIdentity, reminds: bool) -> Self {
        let wizard = Wizard::open(Context {
            stage: identity.stage.unwrap_or(ReminderStage::FirstPeriod),
            not_after: identity.not_after,
            user: identity.user.clone(),
            server: identity.server.clone(),
            put_off: identity.put_off,
            site_reachable: identity.site_reachable,
        });
        Self {
            wizard,
            user: identity.user.clone(),
            password: Secret::default(),
            password_missing: false,
            at: None,
            details: Details::default(),
            entered: true,
            probing: false,
            closes_at: None,
            reminds,
        }
    }

    pub fn page(&self) -> &Page {
        self.wizard.page()
    }

    /// News of the agent. `status` is in the scene already. Nothing but its own end takes a page away on which
    /// somebody types: whether the site is there, they learn from its answer.
    pub fn hear(&mut self, news: &News) -> Option<Wish> {
        let event = match news {
            News::Away => Event::AgentGone,
            News::Status(status) => {
                let back = self.take(Event::AgentBack);
                let Some(identity) = &status.identity else {
                    return back;
                };
                if identity.not_after > self.wizard.context().not_after
                    && *self.wizard.page() != Page::Progress
                {
                    let not_after = identity.not_after;
                    return self.take(Event::RenewedMeanwhile { not_after });
                }
                Event::SiteReachable(identity.site_reachable)
            }
            News::Event(LocalEvent::Renewed { not_after }) => {
                // Its own renewal ends with a step.
                if *self.wizard.page() == Page::Progress {
                    return None;
                }
                let not_after = *not_after;
                Event::RenewedMeanwhile { not_after }
            }
            News::Event(LocalEvent::SiteReachable(reachable)) => Event::SiteReachable(*reachable),
            News::Event(LocalEvent::ReminderDue { .. }) => {
                self.reminds = true;
                return None;
            }
            News::Event(LocalEvent::ReminderDone) => return None,
            News::Step(RenewalStep::Renewed { not_after }) => {
                let not_after = *not_after;
                Event::Renewed { not_after }
            }
            News::Step(RenewalStep::Refused {
                failure, detail, ..
            }) => Event::Refused(Failed {
                failure: *failure,
                detail: detail.clone(),
            }),
            News::Step(step) => {
                self.at = Some(step.clone());
                return None;
            }
            News::CheckIn(step) => {
                let reachable = match step {
                    RenewalStep::CheckedIn { .. } => Some(true),
                    RenewalStep::Refused { failure, .. } => answers(*failure),
                    _ => return None,
                };
                self.probing = false;
                Event::SiteReachable(reachable?)
            }
            News::PutOff(_) | News::Saved(_) | News::Started(_) => return None,
        };
        let types = *self.wizard.page() == Page::Credentials && !self.password.is_empty();
        if types && event == Event::SiteReachable(false) {
            return None;
        }
        self.take(event)
    }

    /// The window is being closed: the same as later.
    pub fn close(&mut self) -> Option<Wish> {
        self.take(Event::Close)
    }

    /// Time goes on, whether the window is seen or not. Nobody asked for "already renewed", and nobody may be
    /// there to close it.
    pub fn tick(&mut self, now: Instant) -> Option<Wish> {
        let Page::Done {
            meanwhile: true, ..
        } = self.wizard.page()
        else {
            return None;
        };
        let at = *self.closes_at.get_or_insert(now + READING);
        if now < at {
            return None;
        }
        self.take(Event::Close)
    }

    pub fn closes_soon(&self) -> bool {
        self.closes_at.is_some()
    }

    fn take(&mut self, event: Event) -> Option<Wish> {
        let before = self.wizard.page().clone();
        let probes = before == Page::Offline && event == Event::TryAgain;
        let effect = self.wizard.take(event);
        if *self.wizard.page() != before {
            self.entered = true;
            self.password_missing = false;
            self.details = Details::default();
            // What was typed on a page that is gone is not wanted any more; what goes to the agent is
            // taken out below.
            if effect != Some(Effect::AskAgent) {
                self.password.forget();
            }
        }
        match effect {
            Some(Effect::AskAgent) => {
                self.at = None;
                Some(Wish::Ask(Ask::Renew(Credentials {
                    user: self.user.trim().to_owned(),
                    password: self.password.take_out(),
                })))
            }
            Some(Effect::PutOff) if self.reminds => Some(Wish::PutOff),
            Some(Effect::PutOff | Effect::Exit) => Some(Wish::Close),
            None if probes && !self.probing => {
                self.probing = true;
                Some(Wish::Ask(Ask::CheckIn))
            }
            None => None,
        }
    }

    fn submit(&mut self) -> Option<Wish> {
        if self.password.is_empty() {
            self.password_missing = true;
            self.entered = true;
            return None;
        }
        self.take(Event::Submit)
    }

    pub fn show(&mut self, ui: &mut Ui, scene: &Scene<'_>) -> Option<Wish> {
        let entered = std::mem::take(&mut self.entered);
        let event = match self.wizard.page().clone() {
            Page::Notice => self.notice(ui, scene, entered),
            Page::Credentials => {
                return match self.credentials(ui, scene, entered)? {
                    Event::Submit => self.submit(),
                    event => self.take(event),
                };
            }
            Page::Offline => self.offline(ui, scene, entered),
            Page::Progress => {
                let words = scene.words;
                let head = scene.head(words.progress_title(), words.progress_subtitle());
                widgets::page::<Event>(ui, &head, &[], entered, |ui| {
                    widgets::card(ui, |ui| scene::steps(ui, words, self.at.as_ref()));
                })
            }
            Page::Done {
                not_after,
                meanwhile,
            } => done(ui, scene, entered, not_after, meanwhile),
            Page::Failed(failed) => self.failed(ui, scene, entered, &failed),
            Page::Waiting(_) => scene::waiting(ui, scene, Event::Close, entered),
            Page::Closed { .. } => None,
        };
        event.and_then(|event| self.take(event))
    }

    fn notice(&mut self, ui: &mut Ui, scene: &Scene<'_>, entered: bool) -> Option<Event> {
        let words = scene.words;
        let Context {
            stage, not_after, ..
        } = *self.wizard.context();
        let left = scene.left(not_after);
        // As it is now: time goes on, and clocks are set.
        let expired = !left.is_positive();
        let stage = match identity(scene).and_then(|identity| identity.stage) {
            _ if expired => ReminderStage::Expired,
            Some(ReminderStage::SecondPeriod) => ReminderStage::SecondPeriod,
            Some(_) => ReminderStage::FirstPeriod,
            None if stage == ReminderStage::Expired => ReminderStage::FirstPeriod,
            None => stage,
        };
        let subtitle = if expired {
            words.expired_on(not_after)
        } else {
            words.expires_in(left)
        };
        let title = if expired {
            words.expired_title()
        } else {
            words.renew_title()
        };
        let mut actions = self.later(scene);
        actions.push(Action::primary(words.continue_(), Event::Continue));
        let head = scene.head(title, &subtitle);
        widgets::page(ui, &head, &actions, entered, |ui| {
            let shown = identity(scene);
            widgets::card(ui, |ui| {
                if let Some(identity) = shown {
                    let name = if expired {
                        words.expired()
                    } else {
                        words.expires()
                    };
                    let stage = identity.stage.or(self.reminds.then_some(stage));
                    let tone = scene.tone(stage, not_after);
                    scene::certificate(ui, scene, identity.not_before, not_after, tone, name);
                    ui.add_space(8.0);
                }
                widgets::body(ui, &words.what_stops(stage, not_after));
                widgets::body(ui, words.what_it_takes());
            });
            self.later_words(ui, scene);
        })
    }

    fn credentials(&mut self, ui: &mut Ui, scene: &Scene<'_>, entered: bool) -> Option<Event> {
        let words = scene.words;
        let mut actions = self.later(scene);
        actions.push(Action::secondary(words.back(), Event::Back));
        actions.push(Action::primary(words.renew(), Event::Submit));
        let head = scene.head(words.sign_in_title(), words.sign_in_subtitle());
        let mut submitted = false;
        let mut server = self.wizard.context().server.clone();
        // Who renews as another user is root.
        let fixed = !scene.status.may_choose_server;
        let pressed = widgets::page(ui, &head, &actions, false, |ui| {
            widgets::card(ui, |ui| {
                widgets::beside(
                    ui,
                    |ui| {
                        Field::new("user", words.user_name())
                            .read_only(fixed)
                            .show(ui, &mut self.user);
                    },
                    |ui| {
                        Field::new("server", words.server_name())
                            .read_only(true)
                            .show(ui, &mut server);
                    },
                );
                ui.add_space(8.0);
                let missing = self.password_missing.then(|| words.password_is_missing());
                let field = Field::new("password", words.password())
                    .password()
                    .note(words.used_once())
                    .error(missing)
                    .show(ui, &mut self.password);
                if field.changed() {
                    self.password_missing = false;
                }
                if entered {
                    widgets::take_focus(&field);
                }
                submitted = submits(ui, &field);
            });
            self.later_words(ui, scene);
        });
        pressed.or(submitted.then_some(Event::Submit))
    }

    fn offline(&mut self, ui: &mut Ui, scene: &Scene<'_>, entered: bool) -> Option<Event> {
        let words = scene.words;
        let mut actions = self.later(scene);
        actions.push(Action::secondary(words.back(), Event::Back));
        actions.push(Action::primary(words.try_again(), Event::TryAgain));
        let head = scene.head(words.offline_title(), words.offline_subtitle());
        let server = self.wizard.context().server.clone();
        widgets::page(ui, &head, &actions, entered, |ui| {
            widgets::card(ui, |ui| {
                widgets::marked(ui, Tone::Warning, |ui| {
                    let shown = widgets::body(ui, words.offline());
                    widgets::announce(ui, &shown, words.offline(), true);
                    widgets::row(ui, words.server_name(), &server);
                    if let Some(help_desk) = &scene.status.look.help_desk {
                        widgets::small(ui, &words.help_desk(help_desk));
                    }
                });
                if self.probing {
                    ui.add_space(6.0);
                    widgets::waiting(ui, words.checking_in());
                }
            });
            self.later_words(ui, scene);
        })
    }

    fn failed(
        &mut self,
        ui: &mut Ui,
        scene: &Scene<'_>,
        entered: bool,
        failed: &Failed,
    ) -> Option<Event> {
        let words = scene.words;
        let mut actions = self.later(scene);
        actions.push(Action::primary(words.try_again(), Event::TryAgain));
        let head = scene.head(words.failed_title(), "");
        let mut details = std::mem::take(&mut self.details);
        let pressed = widgets::page(ui, &head, &actions, entered, |ui| {
            let said = words.failure(failed.failure);
            scene::failed(ui, scene, failed, said, words.as_before(), &mut details);
            self.later_words(ui, scene);
        });
        self.details = details;
        pressed
    }

    /// Where it may be put off. Who chose to renew just closes.
    fn later<'a>(&self, scene: &Scene<'a>) -> Vec<Action<'a, Event>> {
        let may = identity(scene).is_none_or(|identity| identity.may_put_off);
        if !self.reminds {
            vec![Action::aside(scene.words.close(), Event::Close)]
        } else if may {
            vec![Action::aside(scene.words.later(), Event::Later)]
        } else {
            Vec::new()
        }
    }

    /// When it would be back, and how often it was put off.
    fn later_words(&self, ui: &mut Ui, scene: &Scene<'_>) {
        let Some(identity) = identity(scene).filter(|_| self.reminds) else {
            return;
        };
        let words = scene.words;
        ui.add_space(6.0);
        if identity.may_put_off {
            let mut line = words.later_until(identity.later_until);
            if let Some(put_off) = words.put_off(identity.put_off) {
                line = format!("{line} {put_off}");
            }
            widgets::small(ui, &line);
        } else {
            widgets::small(ui, words.may_not_put_off());
        }
    }
}

/// Whether the site was there; none where it was not asked.
fn answers(failure: RenewalFailure) -> Option<bool> {
    match failure {
        RenewalFailure::WrongPassword | RenewalFailure::TooMany | RenewalFailure::NotAllowed => {
            Some(true)
        }
        RenewalFailure::SiteUnreachable | RenewalFailure::NotTrusted => Some(false),
        RenewalFailure::Busy | RenewalFailure::Other => None,
    }
}

fn identity<'a>(scene: &Scene<'a>) -> Option<&'a LocalIdentity> {
    scene.status.identity.as_ref()
}

/// Enter in a field.
pub fn submits(ui: &Ui, field: &egui::Response) -> bool {
    field.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter))
}

fn done(
    ui: &mut Ui,
    scene: &Scene<'_>,
    entered: bool,
    not_after: domain::Timestamp,
    meanwhile: bool,
) -> Option<Event> {
    let words = scene.words;
    let title = if meanwhile {
        words.meanwhile_title()
    } else {
        words.done_title()
    };
    let actions = [Action::primary(words.close(), Event::Continue)];
    let head = scene.head(title, words.done_subtitle());
    widgets::page(ui, &head, &actions, entered, |ui| {
        scene::new_certificate(ui, scene, not_after, |ui| {
            if meanwhile {
                ui.add_space(6.0);
                widgets::body(ui, words.meanwhile());
                widgets::small(ui, words.closes_by_itself());
            }
        });
    })
}
