//! The preference page *Configuration Manager*: how this computer stands, and what can be done about it.

use domain::ComplianceState;
use egui::Ui;
use protocol::{LocalIdentity, LocalRule, RenewalStep};

use crate::renew::Wish;
use crate::scene::{self, Scene};
use crate::theme::{BODY, Palette, SMALL};
use crate::widgets::{self, Action, Tone};
use crate::worker::{Ask, News};

/// What the page opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    Renew,
    Enroll,
    CheckIn,
    Save,
}

/// What happens below the title.
enum Note {
    Working(Work),
    CheckedIn(domain::Timestamp),
    Refused(domain::wizard::Failed),
    Saved(String),
    NotSaved(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    CheckIn,
    Save,
}

/// What the page wants of its window.
pub enum Want {
    Open(Chosen),
    Wish(Wish),
}

#[derive(Default)]
pub struct Preferences {
    note: Option<Note>,
    away: bool,
    visited: bool,
}

impl Preferences {
    pub fn hear(&mut self, news: &News) {
        match news {
            News::Away => self.away = true,
            News::Status(_) => self.away = false,
            News::CheckIn(RenewalStep::CheckedIn { at }) => self.note = Some(Note::CheckedIn(*at)),
            News::CheckIn(RenewalStep::Refused {
                failure, detail, ..
            }) => {
                self.note = Some(Note::Refused(domain::wizard::Failed {
                    failure: *failure,
                    detail: detail.clone(),
                }));
            }
            News::Saved(Ok(path)) => self.note = Some(Note::Saved(path.display().to_string())),
            News::Saved(Err(reason)) => self.note = Some(Note::NotSaved(reason.clone())),
            _ => {}
        }
    }

    pub fn show(&mut self, ui: &mut Ui, scene: &Scene<'_>) -> Option<Want> {
        let words = scene.words;
        let entered = !std::mem::replace(&mut self.visited, true);
        let identity = scene.status.identity.as_ref();
        let expired = identity.is_some_and(|identity| identity.not_after <= scene.now);
        let state = match identity {
            None => words.state_not_enrolled(),
            Some(_) if expired => words.state_expired(),
            Some(_) => words.state_enrolled(),
        };
        let mut actions = vec![Action::aside(words.save_diagnostics(), Chosen::Save)];
        if identity.is_some() {
            actions.push(Action::secondary(words.check_in_now(), Chosen::CheckIn));
            actions.push(Action::primary(words.renew_certificate(), Chosen::Renew));
        } else {
            actions.push(Action::primary(words.enroll_computer(), Chosen::Enroll));
        }
        let head = scene.head(words.preferences_title(), state);
        let chosen = widgets::page(ui, &head, &actions, entered, |ui| {
            ui.spacing_mut().item_spacing.y = 10.0;
            self.show_note(ui, scene);
            match identity {
                None => {
                    widgets::card(ui, |ui| widgets::body(ui, words.not_enrolled_yet()));
                }
                Some(identity) => show_identity(ui, scene, identity),
            }
            widgets::small(ui, &words.agent_version(&scene.status.agent_version));
        });
        match chosen? {
            Chosen::CheckIn if !self.is_working() => {
                self.note = Some(Note::Working(Work::CheckIn));
                Some(Want::Wish(Wish::Ask(Ask::CheckIn)))
            }
            Chosen::Save if !self.is_working() => {
                self.note = Some(Note::Working(Work::Save));
                Some(Want::Wish(Wish::Ask(Ask::SaveDiagnostics(scene.now))))
            }
            Chosen::CheckIn | Chosen::Save => None,
            chosen => Some(Want::Open(chosen)),
        }
    }

    fn is_working(&self) -> bool {
        matches!(self.note, Some(Note::Working(_)))
    }

    fn show_note(&self, ui: &mut Ui, scene: &Scene<'_>) {
        let words = scene.words;
        if self.away {
            widgets::banner(ui, Tone::Warning, words.waiting());
        }
        match &self.note {
            None => {}
            Some(Note::Working(Work::CheckIn)) => widgets::waiting(ui, words.checking_in()),
            Some(Note::Working(Work::Save)) => widgets::waiting(ui, words.saving()),
            Some(Note::CheckedIn(at)) => widgets::banner(ui, Tone::Good, &words.checked_in(*at)),
            Some(Note::Refused(failed)) => {
                let (what, act) = words.failure(failed.failure);
                let line = format!("{what} {act}\n{}", failed.detail);
                widgets::banner(ui, Tone::Bad, line.trim_end());
            }
            Some(Note::Saved(path)) => widgets::banner(ui, Tone::Good, &words.saved(path)),
            Some(Note::NotSaved(reason)) => {
                widgets::banner(ui, Tone::Bad, &words.not_saved(reason));
            }
        }
    }
}

fn show_identity(ui: &mut Ui, scene: &Scene<'_>, identity: &LocalIdentity) {
    let words = scene.words;
    let palette = Palette::of(ui);
    widgets::card(ui, |ui| {
        widgets::heading(ui, words.certificate());
        let tone = scene.tone(identity.stage, identity.not_after);
        let name = if identity.not_after <= scene.now {
            words.expired()
        } else {
            words.valid_until()
        };
        let (begin, end) = (identity.not_before, identity.not_after);
        scene::certificate(ui, scene, begin, end, tone, name);
        ui.add_space(6.0);
        widgets::row(ui, words.user_name(), &identity.user);
        if let Some(smsid) = &identity.smsid {
            widgets::row(ui, words.identifier(), smsid);
        }
    });
    widgets::card(ui, |ui| {
        widgets::heading(ui, words.renewal());
        let silent = words.silent_renewal(identity.renewal_mode, identity.renews_at);
        widgets::row(ui, words.by_itself(), &silent);
        let reminder = match identity.next_reminder {
            Some(at) => words.moment(at),
            None => words.no_reminder().to_owned(),
        };
        widgets::row(ui, words.next_reminder(), &reminder);
        ui.add_space(4.0);
        widgets::strong(ui, words.schedule(), SMALL, palette.weak);
        for setting in &identity.renewal_settings {
            let (name, value) = words.setting(setting);
            widgets::row(ui, name, &value);
            let unused = identity.unused_settings.iter();
            for (_, unused) in unused.filter(|(key, _)| *key == setting.key) {
                let notice = words.setting_notice(setting, unused);
                widgets::text(ui, &notice, SMALL, palette.warning);
            }
        }
    });
    widgets::card(ui, |ui| {
        widgets::heading(ui, words.connection());
        widgets::row(ui, words.server_name(), &identity.server);
        let reachable = words.reachable(identity.site_reachable);
        widgets::row(ui, words.reachable_name(), reachable);
        let last = match identity.last_check_in {
            Some(at) => words.moment(at),
            None => words.never().to_owned(),
        };
        widgets::row(ui, words.last_check_in(), &last);
        if !identity.trust_verified {
            widgets::text(ui, words.trust_is_unverified(), SMALL, palette.warning);
        }
        if !identity.troubles.is_empty() {
            ui.add_space(4.0);
            widgets::strong(ui, words.troubles(), SMALL, palette.weak);
            for trouble in &identity.troubles {
                widgets::marked(ui, Tone::Warning, |ui| {
                    widgets::body(ui, words.trouble(trouble));
                    widgets::small(ui, &trouble.detail);
                });
            }
        }
    });
    widgets::card(ui, |ui| {
        show_compliance(ui, scene, identity.compliance.as_deref())
    });
}

fn show_compliance(ui: &mut Ui, scene: &Scene<'_>, rules: Option<&[LocalRule]>) {
    let words = scene.words;
    let palette = Palette::of(ui);
    widgets::heading(ui, words.compliance());
    let Some(rules) = rules else {
        widgets::body(ui, words.not_evaluated());
        return;
    };
    if rules.is_empty() {
        widgets::marked(ui, Tone::Good, |ui| {
            widgets::body(ui, words.compliant());
        });
        return;
    }
    widgets::text(ui, &words.rules_not_met(rules.len()), BODY, palette.weak);
    for rule in rules {
        let tone = match rule.state {
            ComplianceState::NonCompliant
            | ComplianceState::RemediationFailed
            | ComplianceState::Error
                if !rule.mends_itself =>
            {
                Tone::Bad
            }
            _ => Tone::Warning,
        };
        ui.add_space(4.0);
        widgets::marked(ui, tone, |ui| {
            ui.spacing_mut().item_spacing.y = 2.0;
            let name = format!("{} · {}", rule.rule, rule.baseline);
            widgets::strong(ui, &name, BODY, palette.text);
            let state = format!(
                "{}, {}",
                words.rule_state(rule.state),
                words.since(rule.since)
            );
            widgets::small(ui, &state);
            // What was not checked yet needs nobody's help.
            if rule.state == ComplianceState::Unknown {
                return;
            }
            let help = if rule.mends_itself {
                words.mends_itself()
            } else {
                words.needs_help()
            };
            widgets::small(ui, help);
        });
    }
}
