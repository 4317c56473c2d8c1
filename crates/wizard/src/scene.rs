//! What every page is given, and the parts that several pages show.

use domain::wizard::Failed;
use domain::{ReminderStage, Timestamp};
use egui::{Response, Ui};
use jiff::SignedDuration;
use protocol::{LocalIdentity, LocalStatus, RenewalStep};

use crate::theme::{HEADING, Palette};
use crate::widgets::{self, Action, Head, StepState, Tone};
use crate::words::Words;

/// The world behind a page.
pub struct Scene<'a> {
    pub words: &'a Words,
    pub status: &'a LocalStatus,
    /// The agent's time.
    pub now: Timestamp,
    /// The company's picture.
    pub picture: Option<&'a egui::TextureHandle>,
}

impl<'a> Scene<'a> {
    pub fn head(&self, title: &'a str, subtitle: &'a str) -> Head<'a> {
        let picture = self.picture;
        Head {
            title,
            subtitle,
            picture,
        }
    }

    pub fn left(&self, not_after: Timestamp) -> SignedDuration {
        self.now.duration_until(not_after)
    }

    /// How a certificate's time is shown.
    pub fn tone(&self, stage: Option<ReminderStage>, not_after: Timestamp) -> Tone {
        match stage {
            _ if not_after <= self.now => Tone::Bad,
            None => Tone::Good,
            Some(ReminderStage::FirstPeriod) => Tone::Warning,
            Some(ReminderStage::SecondPeriod | ReminderStage::Expired) => Tone::Bad,
        }
    }
}

/// A certificate: when it expires, what is left, and its life as a bar.
pub fn certificate(
    ui: &mut Ui,
    scene: &Scene<'_>,
    not_before: Timestamp,
    not_after: Timestamp,
    tone: Tone,
    name: &str,
) -> Response {
    let words = scene.words;
    let palette = Palette::of(ui);
    let left = scene.left(not_after);
    ui.horizontal_wrapped(|ui| {
        widgets::text(ui, name, crate::theme::SMALL, palette.weak);
        widgets::pill(ui, tone, &words.time_left(left));
    });
    let moment = widgets::strong(ui, &words.moment(not_after), HEADING, palette.text);
    ui.add_space(4.0);
    let life = not_before.duration_until(not_after).as_secs_f64();
    let gone = not_before.duration_until(scene.now).as_secs_f64();
    let over = if life > 0.0 { gone / life } else { 1.0 };
    let over = over.clamp(0.0, 1.0) as f32;
    let percent = (over * 100.0) as u8;
    let ends = [
        words.issued_on(not_before),
        words.expires_on(not_after, not_after <= scene.now),
    ];
    widgets::life(
        ui,
        over,
        tone,
        words.bar_name(),
        &words.bar_value(percent, left),
        [&ends[0], &ends[1]],
    );
    moment
}

/// A certificate that just came, and whatever else there is to say.
pub fn new_certificate(
    ui: &mut Ui,
    scene: &Scene<'_>,
    not_after: Timestamp,
    more: impl FnOnce(&mut Ui),
) {
    let words = scene.words;
    let identity = scene.status.identity.as_ref();
    widgets::card(ui, |ui| {
        widgets::marked(ui, Tone::Good, |ui| {
            let shown = match identity.filter(|identity| identity.not_after == not_after) {
                Some(identity) => {
                    let begin = identity.not_before;
                    let name = words.valid_until();
                    certificate(ui, scene, begin, not_after, Tone::Good, name)
                }
                // The agent tells of it in a moment.
                None => {
                    let palette = Palette::of(ui);
                    widgets::small(ui, words.valid_until());
                    widgets::strong(ui, &words.moment(not_after), HEADING, palette.text)
                }
            };
            widgets::announce(ui, &shown, &words.new_until(not_after), false);
            more(ui);
        });
    });
}

/// The agent's work, as three steps and a bar.
pub fn steps(ui: &mut Ui, words: &Words, at: Option<&RenewalStep>) {
    let running = match at {
        None | Some(RenewalStep::Waiting) => 0,
        Some(RenewalStep::AskingTheSite) => 1,
        Some(_) => 2,
    };
    let names = [
        words.step_waiting(),
        words.step_asking(),
        words.step_taking(),
    ];
    let done = [0.15, 0.5, 0.85][running];
    widgets::progress(ui, done, words.working(), names[running]);
    ui.add_space(8.0);
    for (index, name) in names.into_iter().enumerate() {
        let (state, said) = match index.cmp(&running) {
            std::cmp::Ordering::Less => (StepState::Done, words.step_is_done()),
            std::cmp::Ordering::Equal => (StepState::Running, words.step_is_running()),
            std::cmp::Ordering::Greater => (StepState::Ahead, words.step_is_ahead()),
        };
        widgets::step(ui, name, state, &words.step_state(name, said));
    }
}

/// What is folded away, and whether it was copied.
#[derive(Debug, Default)]
pub struct Details {
    open: bool,
    copied: bool,
}

impl Details {
    /// A button that copies `text`, and says so.
    pub fn copy(&mut self, ui: &mut Ui, words: &Words, text: &str) -> Response {
        let row = ui.horizontal(|ui| {
            let button = widgets::button(ui, words.copy());
            if button.clicked() {
                ui.ctx().copy_text(text.to_owned());
                self.copied = true;
            }
            if self.copied {
                let copied = widgets::small(ui, words.copied());
                widgets::announce(ui, &copied, words.copied(), false);
            }
            button
        });
        row.inner
    }
}

/// The page of a wizard whose agent does not answer.
pub fn waiting<T: Clone>(ui: &mut Ui, scene: &Scene<'_>, close: T, entered: bool) -> Option<T> {
    let words = scene.words;
    let actions = [Action::primary(words.close(), close)];
    let head = scene.head(words.waiting_title(), words.waiting_subtitle());
    widgets::page(ui, &head, &actions, entered, |ui| {
        widgets::card(ui, |ui| {
            widgets::waiting(ui, words.waiting());
            widgets::small(ui, words.waiting_long());
        });
    })
}

/// Why it did not work, and what to do.
pub fn failed(
    ui: &mut Ui,
    scene: &Scene<'_>,
    failed: &Failed,
    (what, act): (&str, &str),
    calm: &str,
    details: &mut Details,
) {
    let words = scene.words;
    let palette = Palette::of(ui);
    widgets::card(ui, |ui| {
        widgets::marked(ui, Tone::Bad, |ui| {
            let what_shown = widgets::strong(ui, what, HEADING, palette.text);
            widgets::announce(ui, &what_shown, what, true);
            widgets::body(ui, act);
            if let Some(help_desk) = &scene.status.look.help_desk {
                widgets::body(ui, &words.help_desk(help_desk));
            }
            widgets::small(ui, calm);
        });
    });
    if failed.detail.is_empty() {
        return;
    }
    ui.add_space(6.0);
    widgets::fold(ui, words.details(), &mut details.open);
    if details.open {
        let text = detail_text(scene, failed);
        widgets::code(ui, &text);
        details.copy(ui, words, &text);
    }
}

/// What a help desk asks for. In English, as the agent's log.
fn detail_text(scene: &Scene<'_>, failed: &Failed) -> String {
    let mut lines = vec![failed.detail.clone(), format!("kind: {}", failed.failure)];
    if let Some(LocalIdentity { server, smsid, .. }) = &scene.status.identity {
        lines.push(format!("server: {server}"));
        lines.extend(smsid.iter().map(|smsid| format!("SMSID: {smsid}")));
    }
    lines.push(format!("agent: {}", scene.status.agent_version));
    let to_the_second = scene.now.strftime("%Y-%m-%dT%H:%M:%SZ");
    lines.push(format!("time: {to_the_second}"));
    lines.join("\n")
}
