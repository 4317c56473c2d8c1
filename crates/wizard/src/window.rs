//! The window: one of the wizards, or the preference page. It hears the agent, gives the page the time,
//! and closes when the page is done.

use std::time::{Duration, Instant};

use data_encoding::BASE64;
use domain::Timestamp;
use domain::wizard::Page;
use egui::{TextureHandle, TextureOptions, Ui, ViewportCommand, vec2};
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use protocol::{LocalEvent, LocalStatus};

use crate::enroll::Enroll;
use crate::preferences::{Chosen, Preferences, Want};
use crate::renew::{Renew, Wish};
use crate::scene::Scene;
use crate::widgets::{self, Action};
use crate::words::Words;
use crate::worker::{Agents, Ask, News};

/// In points, at 100 %.
pub const SIZE: egui::Vec2 = vec2(660.0, 560.0);
pub const LEAST_SIZE: egui::Vec2 = vec2(320.0, 300.0);

/// What a window is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A reminder is due.
    Renew,
    Enroll,
    Preferences,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Renew, Self::Enroll, Self::Preferences];

    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Renew => "renew",
            Self::Enroll => "enroll",
            Self::Preferences => "preferences",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.name() == name)
    }
}

enum View {
    /// The agent did not answer yet.
    Loading {
        away: bool,
    },
    Renew(Renew),
    Enroll(Enroll),
    Preferences(Preferences),
}

pub struct Window {
    purpose: Purpose,
    agents: Box<dyn Agents>,
    locale: String,
    zone: TimeZone,
    words: Words,
    view: View,
    status: Option<(LocalStatus, Instant)>,
    /// When the agent was asked again.
    looked: Option<Instant>,
    picture: Option<TextureHandle>,
    /// The agent is told that it was put off; the window closes when it knows, or soon.
    leaving: Option<Instant>,
    closed: bool,
    /// The reminder that was seen last: an agent that restarts tells of it once more.
    known: Option<Timestamp>,
    /// How much later it is than the machine says.
    ahead: Duration,
    zoom: f32,
    /// As the desktop knows the window.
    titled: String,
}

/// How old what is shown may be: "Remind me later" says to the minute when the window would be back.
const LOOK_AGAIN: Duration = Duration::from_secs(20);

/// How long a window that is being closed waits for the agent.
const FAREWELL: Duration = Duration::from_secs(2);

impl Window {
    pub fn new(purpose: Purpose, agents: Box<dyn Agents>, locale: &str, zone: TimeZone) -> Self {
        Self {
            purpose,
            agents,
            locale: locale.to_owned(),
            words: Words::choose(None, locale, zone.clone()),
            zone,
            view: View::Loading { away: false },
            status: None,
            looked: None,
            picture: None,
            leaving: None,
            closed: false,
            known: None,
            ahead: Duration::ZERO,
            zoom: 1.0,
            titled: String::new(),
        }
    }

    /// True when the window has nothing more to show.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub fn words(&self) -> &Words {
        &self.words
    }

    fn instant(&self) -> Instant {
        Instant::now() + self.ahead
    }

    /// Lets time pass at once; for tests.
    pub fn pass(&mut self, time: Duration) {
        self.ahead += time;
    }

    fn now(&self) -> Timestamp {
        match &self.status {
            None => Timestamp::UNIX_EPOCH,
            Some((status, received)) => {
                let since = self.instant().saturating_duration_since(*received);
                let since = SignedDuration::try_from(since).unwrap_or_default();
                status.now.saturating_add(since).unwrap_or(status.now)
            }
        }
    }

    /// Hears the agent.
    pub fn hear_all(&mut self, ctx: &egui::Context) {
        while let Some(news) = self.agents.news() {
            self.hear(ctx, &news);
        }
    }

    fn hear(&mut self, ctx: &egui::Context, news: &News) {
        match news {
            News::Status(status) => self.take_status(ctx, status),
            News::PutOff(_) if self.leaving.is_some() => self.closed = true,
            News::Started(start) => {
                come_forward(ctx, start.by_person);
                self.turn_to(start.purpose);
            }
            News::Event(LocalEvent::ReminderDue { since, .. }) if self.known != Some(*since) => {
                self.known = Some(*since);
                come_forward(ctx, false);
                self.turn_to(Purpose::Renew);
            }
            News::Away => {
                if let View::Loading { away } = &mut self.view {
                    *away = true;
                }
            }
            _ => {}
        }
        let wish = match &mut self.view {
            View::Loading { .. } => None,
            View::Renew(renew) => renew.hear(news),
            View::Enroll(enroll) => {
                enroll.hear(news);
                None
            }
            View::Preferences(page) => {
                page.hear(news);
                None
            }
        };
        self.fulfil(wish);
    }

    /// A page on which nothing was begun, or that is done, makes room for what is wanted.
    fn turn_to(&mut self, purpose: Purpose) {
        let makes_room = match &self.view {
            View::Loading { .. } | View::Preferences(_) => true,
            View::Renew(renew) => matches!(renew.page(), Page::Done { .. }),
            View::Enroll(_) => false,
        };
        if makes_room && purpose != Purpose::Preferences {
            self.purpose = purpose;
            self.view = self.open(purpose);
        }
    }

    fn take_status(&mut self, ctx: &egui::Context, status: &LocalStatus) {
        let look = &status.look;
        let is_new = self
            .status
            .as_ref()
            .is_none_or(|(old, _)| old.look != *look);
        if is_new {
            self.words = Words::choose(look.language.as_deref(), &self.locale, self.zone.clone())
                .of_company(look.company.clone());
            self.picture = look.logo.as_deref().and_then(|logo| picture(ctx, logo));
        }
        self.status = Some((status.clone(), self.instant()));
        if matches!(self.view, View::Loading { .. }) {
            self.known = status.reminder_waits();
            self.view = self.open(self.purpose);
        }
    }

    fn open(&self, purpose: Purpose) -> View {
        let Some((status, _)) = &self.status else {
            return View::Loading { away: false };
        };
        match (purpose, &status.identity) {
            (Purpose::Preferences, _) => View::Preferences(Preferences::default()),
            (Purpose::Renew, Some(identity)) => {
                let reminds = self.purpose == Purpose::Renew && identity.reminder_waits.is_some();
                View::Renew(Renew::open(identity, reminds))
            }
            // Enrolled anew it would be another computer, which is root's to decide.
            (Purpose::Enroll, Some(_)) if !status.may_choose_server => {
                View::Preferences(Preferences::default())
            }
            (Purpose::Renew, None) | (Purpose::Enroll, _) => View::Enroll(Enroll::open(status)),
        }
    }

    fn fulfil(&mut self, wish: Option<Wish>) {
        match wish {
            None => {}
            Some(Wish::Ask(ask)) => self.agents.ask(ask),
            Some(Wish::PutOff) => {
                self.agents.ask(Ask::PutOff);
                self.leaving = Some(self.instant());
            }
            // From the preference page it goes back there.
            Some(Wish::Close) if self.purpose == Purpose::Preferences => {
                self.view = self.open(Purpose::Preferences);
            }
            Some(Wish::Close) => self.closed = true,
        }
    }

    /// The person closes the window. True when it may go at once.
    pub fn close(&mut self) -> bool {
        if self.closed || self.leaving.is_some() {
            return true;
        }
        let wish = match &mut self.view {
            View::Renew(renew) => renew.close(),
            _ => None,
        };
        match wish {
            Some(Wish::PutOff) => {
                self.fulfil(wish);
                false
            }
            _ => true,
        }
    }

    fn title(&self) -> String {
        let title = match &self.view {
            View::Loading { .. } | View::Preferences(_) => self.words.preferences_title(),
            View::Renew(_) => self.words.renew_window(),
            View::Enroll(_) => self.words.enroll_window(),
        };
        let look = self.status.as_ref().map(|(status, _)| &status.look);
        match look.and_then(|look| look.company.as_ref()) {
            Some(company) => format!("{title} – {company}"),
            None => title.to_owned(),
        }
    }

    /// One frame.
    pub fn show(&mut self, ui: &mut Ui) {
        let title = self.title();
        // What screen readers read first.
        ui.ctx()
            .accesskit_node_builder(egui::accesskit_root_id(), |node| {
                node.set_label(title.as_str());
            });
        let now = self.now();
        let mut wish = None;
        let mut open = None;
        match (&mut self.view, &self.status) {
            (View::Loading { away }, _) => {
                if loading(ui, &self.words, *away) {
                    wish = Some(Wish::Close);
                }
            }
            (_, None) => {}
            (view, Some((status, _))) => {
                let scene = Scene {
                    words: &self.words,
                    status,
                    now,
                    picture: self.picture.as_ref(),
                };
                match view {
                    View::Renew(renew) => wish = renew.show(ui, &scene),
                    View::Enroll(enroll) => wish = enroll.show(ui, &scene),
                    View::Preferences(page) => match page.show(ui, &scene) {
                        Some(Want::Open(chosen)) => open = Some(chosen),
                        Some(Want::Wish(wanted)) => wish = Some(wanted),
                        None => {}
                    },
                    View::Loading { .. } => {}
                }
            }
        }
        match open {
            Some(Chosen::Renew) => self.view = self.open(Purpose::Renew),
            Some(Chosen::Enroll) => self.view = self.open(Purpose::Enroll),
            Some(Chosen::CheckIn | Chosen::Save) | None => {}
        }
        let closes = matches!(wish, Some(Wish::Close)) && matches!(self.view, View::Loading { .. });
        if closes {
            self.closed = true;
        } else {
            self.fulfil(wish);
        }
    }

    /// Time goes on, also while nothing of the window is seen.
    pub fn tick(&mut self, ctx: &egui::Context) {
        let now = self.instant();
        if let View::Renew(renew) = &mut self.view {
            let wish = renew.tick(now);
            self.fulfil(wish);
        }
        match self.leaving {
            Some(since) => self.closed |= now.saturating_duration_since(since) > FAREWELL,
            None => self.look_again(),
        }
        let closes = matches!(&self.view, View::Renew(renew) if renew.closes_soon());
        ctx.request_repaint_after(match self.leaving.is_some() || closes {
            true => Duration::from_secs(1),
            false => LOOK_AGAIN,
        });
        if self.closed {
            ctx.send_viewport_cmd(ViewportCommand::Close);
        }
    }

    /// Nobody tells what only time changes.
    fn look_again(&mut self) {
        let now = self.instant();
        let is_old = |since: Instant| now.saturating_duration_since(since) >= LOOK_AGAIN;
        let received = self.status.as_ref().map(|(_, received)| *received);
        if received.is_some_and(is_old) && self.looked.is_none_or(is_old) {
            self.looked = Some(now);
            self.agents.ask(Ask::Status);
        }
    }

    /// Larger text wants a larger window, as far as there is room.
    fn grow(&mut self, ctx: &egui::Context) {
        let zoom = ctx.zoom_factor();
        if (zoom - self.zoom).abs() < 0.01 {
            return;
        }
        self.zoom = zoom;
        let room = ctx.input(|input| input.viewport().monitor_size);
        let size = match room {
            Some(room) => SIZE.min(room * 0.92),
            None => SIZE,
        };
        ctx.send_viewport_cmd(ViewportCommand::InnerSize(size));
    }
}

impl eframe::App for Window {
    fn logic(&mut self, ctx: &egui::Context, _frame: &mut eframe::Frame) {
        self.hear_all(ctx);
        if ctx.input(|input| input.viewport().close_requested()) && !self.close() {
            ctx.send_viewport_cmd(ViewportCommand::CancelClose);
        }
        self.grow(ctx);
        self.tick(ctx);
    }

    fn ui(&mut self, ui: &mut Ui, _frame: &mut eframe::Frame) {
        self.show(ui);
        let title = self.title();
        if title != self.titled {
            let command = ViewportCommand::Title(title.clone());
            ui.ctx().send_viewport_cmd(command);
            self.titled = title;
        }
        if self.closed {
            ui.ctx().send_viewport_cmd(ViewportCommand::Close);
        }
    }
}

/// Before all others where a person asked for it. Else it only asks to be looked at: it covers nothing, and
/// takes the focus from nobody.
fn come_forward(ctx: &egui::Context, by_person: bool) {
    if by_person {
        ctx.send_viewport_cmd(ViewportCommand::Minimized(false));
        ctx.send_viewport_cmd(ViewportCommand::Focus);
    }
    let attention = egui::UserAttentionType::Informational;
    ctx.send_viewport_cmd(ViewportCommand::RequestUserAttention(attention));
}

/// True when the person closes it.
fn loading(ui: &mut Ui, words: &Words, away: bool) -> bool {
    let actions = [Action::primary(words.close(), ())];
    let (title, subtitle) = if away {
        (words.waiting_title(), words.waiting_subtitle())
    } else {
        (words.preferences_title(), words.loading())
    };
    let head = widgets::Head {
        title,
        subtitle,
        picture: None,
    };
    let pressed = widgets::page(ui, &head, &actions, false, |ui| {
        widgets::card(ui, |ui| {
            if away {
                widgets::waiting(ui, words.waiting());
                widgets::small(ui, words.waiting_long());
            } else {
                widgets::waiting(ui, words.loading());
            }
        });
    });
    pressed.is_some()
}

/// The company's picture: a small PNG, whose size is looked at before it is unpacked.
fn picture(ctx: &egui::Context, base64: &str) -> Option<TextureHandle> {
    const MOST_BYTES: usize = 96 * 1024;
    const MOST_SIDE: u32 = 1024;
    if base64.len() > MOST_BYTES {
        return None;
    }
    let bytes = BASE64.decode(base64.trim().as_bytes()).ok()?;
    let side = |at: usize| {
        let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes)).filter(|side| (1..=MOST_SIDE).contains(side))
    };
    // The header's width and height (PNG, section 11.2.1).
    side(16)?;
    side(20)?;
    let icon = eframe::icon_data::from_png_bytes(&bytes).ok()?;
    let size = [icon.width as usize, icon.height as usize];
    let image = egui::ColorImage::from_rgba_unmultiplied(size, &icon.rgba);
    Some(ctx.load_texture("company", image, TextureOptions::LINEAR))
}
