//! A person at a desk: a window, a keyboard, and an agent that says what the test wants.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use domain::wizard::RenewalFailure;
use domain::{
    ComplianceState, ReminderStage, RenewalKey, RenewalMode, RenewalSchedule, Timestamp, Unused,
};
use egui::accesskit::Role;
use egui::epaint::{ClippedShape, Shape, TextShape};
use egui::{FontDefinitions, Key, Modifiers, Rect, Theme, Vec2};
use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT, Queryable};
use jiff::tz::TimeZone;
use protocol::{LocalIdentity, LocalRule, LocalStatus, LocalTrouble, Look, RenewalStep, TroubleOf};
use wizard::theme;
use wizard::window::{Purpose, SIZE, Window};
use wizard::worker::{Agents, Ask, News};

use crate::painter::Cpu;

/// What windows asked, and what they will hear.
#[derive(Default)]
struct Wire {
    asked: Vec<Ask>,
    news: VecDeque<News>,
}

struct Double(Rc<RefCell<Wire>>);

impl Agents for Double {
    fn ask(&mut self, ask: Ask) {
        self.0.borrow_mut().asked.push(ask);
    }

    fn news(&mut self) -> Option<News> {
        self.0.borrow_mut().news.pop_front()
    }
}

/// How a desk is set up.
#[derive(Clone)]
pub struct Setup {
    pub purpose: Purpose,
    pub status: LocalStatus,
    pub locale: &'static str,
    pub theme: Theme,
    /// 2.0 is 200 %.
    pub zoom: f32,
    pub size: Vec2,
    /// The platform's font where there is one; else egui's own, so that nothing depends on the machine.
    pub platform_fonts: bool,
}

impl Setup {
    pub fn new(purpose: Purpose) -> Self {
        Self {
            purpose,
            status: status(),
            locale: "en_GB.UTF-8",
            theme: Theme::Light,
            zoom: 1.0,
            size: SIZE,
            platform_fonts: false,
        }
    }

    pub fn identity(mut self, change: impl FnOnce(&mut LocalIdentity)) -> Self {
        change(self.status.identity.as_mut().expect("an identity"));
        self
    }

    pub fn status(mut self, change: impl FnOnce(&mut LocalStatus)) -> Self {
        change(&mut self.status);
        self
    }

    pub fn sit_down(&self) -> Desk {
        let wire = Rc::new(RefCell::new(Wire::default()));
        let status = News::Status(Box::new(self.status.clone()));
        wire.borrow_mut().news.push_back(status);
        let (setup, double) = (self.clone(), Double(wire.clone()));
        let painter = Cpu::default();
        let harness = Harness::builder()
            .with_size(self.size / self.zoom)
            .with_pixels_per_point(self.zoom)
            .with_theme(self.theme)
            .renderer(painter.clone())
            .build_eframe(move |creation| {
                theme::apply(&creation.egui_ctx, setup.fonts());
                let zone = TimeZone::fixed(jiff::tz::offset(1));
                Window::new(setup.purpose, Box::new(double), setup.locale, zone)
            });
        Desk {
            harness,
            wire,
            painter,
        }
    }

    fn fonts(&self) -> FontDefinitions {
        if self.platform_fonts {
            theme::platform_fonts()
        } else {
            theme::own_fonts()
        }
    }
}

pub struct Desk {
    pub harness: Harness<'static, Window>,
    wire: Rc<RefCell<Wire>>,
    painter: Cpu,
}

impl Desk {
    pub fn picture(&self) -> image::RgbaImage {
        self.painter.paint(&self.harness.ctx, self.harness.output())
    }

    /// The agent says something.
    pub fn hear(&mut self, news: News) {
        self.wire.borrow_mut().news.push_back(news);
        self.harness.run_steps(3);
    }

    pub fn step(&mut self, step: RenewalStep) {
        self.hear(News::Step(step));
    }

    pub fn refuse(&mut self, failure: RenewalFailure) {
        self.step(refused(failure));
    }

    /// What was asked since the last time.
    pub fn asked(&self) -> Vec<Ask> {
        std::mem::take(&mut self.wire.borrow_mut().asked)
    }

    /// Time passes, and the window notices, whether it is seen or not.
    pub fn pass(&mut self, seconds: u64) {
        let ctx = self.harness.ctx.clone();
        let window = self.harness.state_mut();
        window.pass(std::time::Duration::from_secs(seconds));
        window.hear_all(&ctx);
        window.tick(&ctx);
    }

    pub fn press(&mut self, key: Key) {
        self.harness.key_press(key);
        self.harness.run_steps(3);
    }

    pub fn press_with(&mut self, modifiers: Modifiers, key: Key) {
        self.harness.key_press_modifiers(modifiers, key);
        self.harness.run_steps(3);
    }

    pub fn type_text(&mut self, text: &str) {
        self.harness.event(egui::Event::Text(text.to_owned()));
        self.harness.run_steps(2);
    }

    /// Presses a button with the pointer.
    pub fn click(&mut self, name: &str) {
        self.harness
            .get_by_role_and_label(Role::Button, name)
            .click();
        self.harness.run_steps(3);
    }

    pub fn is_closed(&self) -> bool {
        self.harness.state().is_closed()
    }

    pub fn has(&self, role: Role, name: &str) -> bool {
        self.harness
            .query_all_by_role(role)
            .filter_map(|node| node.accesskit_node().label())
            .any(|label| spaced(&label) == name)
    }

    /// The words of the page's title.
    pub fn heading(&self) -> String {
        let headings = self.harness.query_all_by_role(Role::Heading);
        let mut titles = headings.filter(|node| node.accesskit_node().data().level() == Some(1));
        let title = titles.next().expect("a page has a title");
        title.accesskit_node().label().expect("words")
    }

    /// Everything that a screen reader reads, in its order.
    pub fn words(&self) -> String {
        let all = self
            .harness
            .query_all(egui_kittest::kittest::By::new().predicate(|_| true));
        let words = all.flat_map(|node| {
            let node = node.accesskit_node();
            let value = (node.role() != Role::PasswordInput).then(|| node.value());
            [node.label(), value.flatten()].into_iter().flatten()
        });
        spaced(&words.collect::<Vec<_>>().join("\n"))
    }

    pub fn focused(&self) -> Option<(Role, String)> {
        let all = self
            .harness
            .query_all(egui_kittest::kittest::By::new().predicate(|_| true));
        let mut focused = all.filter(|node| node.is_focused());
        let node = focused.next()?;
        let node = node.accesskit_node();
        Some((node.role(), node.label().unwrap_or_default()))
    }

    /// The names of what Tab reaches, once around.
    pub fn tab_order(&mut self) -> Vec<String> {
        let first = self.focused();
        let mut order = Vec::new();
        for _ in 0..12 {
            order.extend(self.focused().map(|(_, name)| name));
            self.press(Key::Tab);
            if self.focused() == first {
                break;
            }
        }
        order
    }

    /// Every control has a name; every text is inside of the window's width and, where it does not
    /// scroll, of its height; no two texts are on each other.
    pub fn check_layout(&self, what: &str) {
        for role in [
            Role::Button,
            Role::TextInput,
            Role::PasswordInput,
            Role::ProgressIndicator,
            Role::Meter,
        ] {
            for node in self.harness.query_all_by_role(role) {
                let name = node.accesskit_node().label().unwrap_or_default();
                assert!(!name.is_empty(), "{what}: {role:?} without a name");
            }
        }
        let window = self.harness.ctx.content_rect().expand(0.5);
        let mut texts: Vec<(Rect, Rect, String)> = Vec::new();
        for ClippedShape {
            clip_rect, shape, ..
        } in &self.harness.output().shapes
        {
            each_text(shape, &mut |text| {
                // The ink of its letters, without the space around them.
                let rect = text.galley.mesh_bounds.translate(text.pos.to_vec2());
                let words = text.galley.text().to_owned();
                if !words.trim().is_empty() && rect.is_positive() {
                    texts.push((rect, *clip_rect, words));
                }
            });
        }
        assert!(!texts.is_empty(), "{what}: nothing is written");
        for (rect, clip, words) in &texts {
            let inside = rect.left() >= window.left() && rect.right() <= window.right();
            assert!(inside, "{what}: beyond the window: {words} {rect:?}");
            let whole = rect.left() >= clip.left() - 1.0 && rect.right() <= clip.right() + 1.0;
            assert!(whole, "{what}: clipped: {words} {rect:?} in {clip:?}");
        }
        // What is scrolled away is on nothing.
        let seen = |(rect, clip, _): &(Rect, Rect, String)| rect.intersect(*clip).shrink(1.0);
        for (index, one) in texts.iter().enumerate() {
            for other in &texts[index + 1..] {
                let both = seen(one).intersect(seen(other));
                let (words, others) = (&one.2, &other.2);
                assert!(
                    !both.is_positive(),
                    "{what}: on each other: {words} / {others}"
                );
            }
        }
    }
}

/// With plain spaces: where lines break is another matter.
pub fn spaced(words: &str) -> String {
    words.replace('\u{a0}', " ")
}

fn each_text(shape: &Shape, visit: &mut impl FnMut(&TextShape)) {
    match shape {
        Shape::Text(text) => visit(text),
        Shape::Vec(shapes) => shapes.iter().for_each(|shape| each_text(shape, visit)),
        _ => {}
    }
}

pub fn at(text: &str) -> Timestamp {
    text.parse().expect("a moment")
}

pub const DETAIL: &str = "the site answered 401: the user name or the password is wrong";

pub fn refused(failure: RenewalFailure) -> RenewalStep {
    RenewalStep::Refused {
        failure,
        detail: DETAIL.to_owned(),
        observed: None,
    }
}

pub fn renewed() -> RenewalStep {
    RenewalStep::Renewed {
        not_after: at("2027-12-04T13:30:00Z"),
    }
}

/// The new certificate is the one in use.
pub fn in_use() -> News {
    let mut status = status();
    let identity = status.identity.as_mut().expect("an identity");
    identity.not_before = at("2026-11-25T08:00:00Z");
    identity.not_after = at("2027-12-04T13:30:00Z");
    identity.stage = None;
    News::Status(Box::new(status))
}

/// An enrolled computer, nine days before its certificate expires.
pub fn status() -> LocalStatus {
    LocalStatus {
        agent_version: "0.1.0".to_owned(),
        now: at("2026-11-25T09:00:00Z"),
        identity: Some(LocalIdentity {
            user: "ann@contoso.com".to_owned(),
            server: "perennial.contoso.com:8444".to_owned(),
            trust_verified: true,
            smsid: Some("GUID:5F2B7C0E-93A4-4B53-8C0E-5D6C4E6D1F3A".to_owned()),
            not_before: at("2025-12-04T13:30:00Z"),
            not_after: at("2026-12-04T13:30:00Z"),
            renewal_mode: RenewalMode::Automatic,
            renews_at: Some(at("2026-11-26T03:12:00Z")),
            last_check_in: Some(at("2026-11-25T08:41:00Z")),
            renewal_settings: RenewalSchedule::default().settings(),
            stage: Some(ReminderStage::FirstPeriod),
            reminder_waits: Some(at("2026-11-25T09:00:00Z")),
            next_reminder: Some(at("2026-11-26T09:00:00Z")),
            put_off: 0,
            later_until: Some(at("2026-11-26T09:00:00Z")),
            may_put_off: true,
            site_reachable: true,
            troubles: Vec::new(),
            unused_settings: Vec::new(),
            compliance: Some(Vec::new()),
        }),
        look: Look {
            company: Some("Contoso".to_owned()),
            help_desk: Some("+49 30 1234-500, helpdesk@contoso.com".to_owned()),
            logo: None,
            language: None,
        },
        may_choose_server: false,
        managed_server: None,
    }
}

pub fn not_enrolled(status: &mut LocalStatus) {
    status.identity = None;
    status.managed_server = Some("perennial.contoso.com".to_owned());
}

/// Much to say.
pub fn troubled(identity: &mut LocalIdentity) {
    identity.site_reachable = false;
    identity.troubles = vec![LocalTrouble {
        of: TroubleOf::CheckIn,
        refused: false,
        detail: "the site at perennial.contoso.com:8444 cannot be reached: connection refused"
            .to_owned(),
    }];
    identity.renewal_settings[1].raw = Some("\"5000000\"".to_owned());
    let unused = Unused::LongerThanPeriod1(3_888_000);
    identity.unused_settings = vec![(RenewalKey::Period2, unused)];
    let rule = |rule: &str, state, mends_itself| LocalRule {
        baseline: "Office computers".to_owned(),
        rule: rule.to_owned(),
        state,
        since: at("2026-11-20T10:00:00Z"),
        mends_itself,
    };
    identity.compliance = Some(vec![
        rule(
            "The screen locks after ten minutes",
            ComplianceState::NonCompliant,
            true,
        ),
        rule(
            "The disk is encrypted",
            ComplianceState::RemediationFailed,
            false,
        ),
        rule("The firewall is on", ComplianceState::Unknown, false),
    ]);
}

impl Desk {
    /// Presses a button wherever it is, as a screen reader does.
    pub fn click_anywhere(&mut self, name: &str) {
        self.harness
            .get_by_role_and_label(Role::Button, name)
            .click_accesskit();
        self.harness.run_steps(3);
    }

    /// Fills in whatever is asked for to enroll, and sends it.
    pub fn enroll_anyhow(&mut self) {
        for role in [Role::TextInput, Role::PasswordInput] {
            let count = self.harness.query_all_by_role(role).count();
            for index in 0..count {
                let node = self.harness.query_all_by_role(role).nth(index);
                node.expect("a field").focus();
                self.harness.run_steps(2);
                self.type_text("x");
            }
        }
        self.press(Key::Enter);
    }
}
