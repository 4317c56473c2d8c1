//! The parts that pages are made of. Each control has a name and a role for screen readers, works by
//! keyboard alone, and shows where the focus is.

use egui::accesskit::{Live, Node, Role};
use egui::{
    Color32, FontFamily, FontId, Frame, Id, Key, Label, Margin, Rect, Response, RichText,
    ScrollArea, Sense, Stroke, StrokeKind, TextBuffer, TextEdit, Ui, UiBuilder, WidgetInfo, pos2,
    vec2,
};

use crate::theme::{
    self, BODY, CARD_RADIUS, CONTROL_RADIUS, HEADING, MARGIN, Palette, SMALL, TITLE,
};

/// What stands at the top of a page.
pub struct Head<'a> {
    pub title: &'a str,
    pub subtitle: &'a str,
    pub picture: Option<&'a egui::TextureHandle>,
}

/// A button at the end of a page.
pub struct Action<'a, T> {
    pub text: &'a str,
    pub weight: Weight,
    pub event: T,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// What most people want: one on a page, at the right.
    Primary,
    /// Beside it.
    Secondary,
    /// At the left.
    Aside,
}

impl<'a, T> Action<'a, T> {
    pub fn primary(text: &'a str, event: T) -> Self {
        let weight = Weight::Primary;
        Self {
            text,
            weight,
            event,
        }
    }

    pub fn secondary(text: &'a str, event: T) -> Self {
        let weight = Weight::Secondary;
        Self {
            text,
            weight,
            event,
        }
    }

    pub fn aside(text: &'a str, event: T) -> Self {
        let weight = Weight::Aside;
        Self {
            text,
            weight,
            event,
        }
    }
}

const BUTTON_HEIGHT: f32 = 38.0;
const FOOTER_PADDING: f32 = 14.0;
const GAP: f32 = 10.0;

/// A whole page: head and body scroll when they do not fit; the buttons stay, unless the window is so
/// low that they scroll, too. Gives the event of the button that was pressed. `entered`: the page is
/// new, and the focus goes to the primary button.
pub fn page<T: Clone>(
    ui: &mut Ui,
    head: &Head<'_>,
    actions: &[Action<'_, T>],
    entered: bool,
    body: impl FnOnce(&mut Ui),
) -> Option<T> {
    let palette = Palette::of(ui);
    let whole = ui.max_rect();
    ui.painter().rect_filled(whole, 0.0, palette.window);
    let footer = Footer::measure(ui, actions, whole.width());
    let scrolls = whole.height() - footer.height < 220.0;
    let mut above = whole;
    if !scrolls {
        above.set_bottom(whole.bottom() - footer.height);
    }
    let mut pressed = None;
    ui.scope_builder(UiBuilder::new().max_rect(above), |ui| {
        ui.set_clip_rect(above);
        let page = (head.title.to_owned(), "page");
        ScrollArea::vertical()
            .id_salt(page)
            .auto_shrink(false)
            .show(ui, |ui| {
                scroll_by_keyboard(ui, above.height());
                let side = side_margin(whole.width());
                let margin = Margin {
                    left: side,
                    right: side,
                    top: side.min(26),
                    bottom: 18,
                };
                Frame::new().inner_margin(margin).show(ui, |ui| {
                    ui.set_width(ui.available_width());
                    show_head(ui, head);
                    ui.add_space(18.0);
                    body(ui);
                });
                if scrolls && !actions.is_empty() {
                    let (_, rect) = ui.allocate_space(vec2(ui.available_width(), footer.height));
                    pressed = footer.show(ui, rect, actions, entered);
                }
            });
    });
    if !scrolls {
        let rect = Rect::from_min_max(pos2(whole.left(), above.bottom()), whole.max);
        pressed = footer.show(ui, rect, actions, entered);
    }
    pressed
}

fn side_margin(width: f32) -> i8 {
    if width < 440.0 { 16 } else { MARGIN as i8 }
}

/// What has no control to move to can be read by keyboard, too.
fn scroll_by_keyboard(ui: &Ui, height: f32) {
    let delta = ui.input(|input| {
        let page = height * 0.8;
        let mut delta = 0.0;
        for (key, by) in [
            (Key::PageDown, -page),
            (Key::PageUp, page),
            (Key::ArrowDown, -40.0),
            (Key::ArrowUp, 40.0),
        ] {
            delta += by * f32::from(u8::try_from(input.num_presses(key)).unwrap_or(1));
        }
        delta
    });
    let types = ui.ctx().text_edit_focused();
    if delta != 0.0 && !types {
        ui.scroll_with_delta(vec2(0.0, delta));
    }
}

fn show_head(ui: &mut Ui, head: &Head<'_>) {
    let palette = Palette::of(ui);
    ui.horizontal_top(|ui| {
        ui.spacing_mut().item_spacing.x = 16.0;
        let side = if ui.available_width() < 330.0 {
            36.0
        } else {
            52.0
        };
        let (_, rect) = ui.allocate_space(vec2(side, side));
        match head.picture {
            Some(picture) => {
                let all = Rect::from_min_max(pos2(0.0, 0.0), pos2(1.0, 1.0));
                let size = picture.size_vec2();
                let fitted = size * (side / size.max_elem());
                let rect = Rect::from_center_size(rect.center(), fitted);
                ui.painter().image(picture.id(), rect, all, Color32::WHITE);
            }
            None => theme::paint_certificate(ui.painter(), rect, palette),
        }
        ui.vertical(|ui| {
            ui.spacing_mut().item_spacing.y = 2.0;
            let title = RichText::new(head.title)
                .font(FontId::new(TITLE, theme::strong()))
                .color(palette.text);
            let title = ui.add(Label::new(title).wrap());
            describe(ui, &title, |node| {
                node.set_role(Role::Heading);
                node.set_label(head.title);
                node.set_level(1);
            });
            if !head.subtitle.is_empty() {
                text(ui, head.subtitle, BODY, palette.weak);
            }
        });
    });
}

/// Where the buttons are.
struct Footer {
    widths: Vec<f32>,
    stacked: bool,
    height: f32,
}

impl Footer {
    fn measure<T>(ui: &Ui, actions: &[Action<'_, T>], width: f32) -> Self {
        let widths: Vec<f32> = actions
            .iter()
            .map(|action| button_width(ui, action.text))
            .collect();
        let room = width - 2.0 * f32::from(side_margin(width));
        let all: f32 = widths.iter().sum::<f32>() + GAP * widths.len().saturating_sub(1) as f32;
        let stacked = all + 24.0 > room;
        let rows = if stacked { widths.len() as f32 } else { 1.0 };
        let height = if actions.is_empty() {
            0.0
        } else {
            rows * (BUTTON_HEIGHT + GAP) - GAP + 2.0 * FOOTER_PADDING
        };
        Self {
            widths,
            stacked,
            height,
        }
    }

    /// Drawn, and so reached by Tab, from left to right; when stacked, the primary one first.
    fn show<T: Clone>(
        &self,
        ui: &mut Ui,
        rect: Rect,
        actions: &[Action<'_, T>],
        entered: bool,
    ) -> Option<T> {
        if actions.is_empty() {
            return None;
        }
        let palette = Palette::of(ui);
        ui.painter().rect_filled(rect, 0.0, palette.footer);
        let side = f32::from(side_margin(rect.width()));
        let inner = rect.shrink2(vec2(side, FOOTER_PADDING));
        let mut order: Vec<usize> = (0..actions.len()).collect();
        if self.stacked {
            order.reverse();
        }
        let right_ones = |index: &usize| actions[*index].weight != Weight::Aside;
        let right: f32 = order
            .iter()
            .filter(|index| right_ones(index))
            .map(|index| self.widths[*index] + GAP)
            .sum::<f32>()
            - GAP;
        let mut left = inner.left();
        let mut from_right = inner.right() - right;
        let mut top = inner.top();
        let mut pressed = None;
        for index in order {
            let action = &actions[index];
            let width = self.widths[index];
            let place = if self.stacked {
                let place = Rect::from_min_size(
                    pos2(inner.left(), top),
                    vec2(inner.width(), BUTTON_HEIGHT),
                );
                top += BUTTON_HEIGHT + GAP;
                place
            } else {
                let x = if action.weight == Weight::Aside {
                    &mut left
                } else {
                    &mut from_right
                };
                let place = Rect::from_min_size(pos2(*x, inner.top()), vec2(width, BUTTON_HEIGHT));
                *x += width + GAP;
                place
            };
            let response = button_at(ui, place, action.text, action.weight);
            if entered && action.weight == Weight::Primary {
                take_focus(&response);
            }
            if response.clicked() {
                pressed = Some(action.event.clone());
            }
        }
        pressed
    }
}

/// The focus of a page that is new: nothing scrolls to it.
pub fn take_focus(response: &Response) {
    let id = response.id;
    response.request_focus();
    response
        .ctx
        .data_mut(|data| data.insert_temp(entry_focus(), id));
}

fn entry_focus() -> Id {
    Id::unique("the focus of a new page")
}

/// Whoever moves the focus sees where it is.
fn follow_focus(response: &Response) {
    if response.gained_focus() {
        let entry: Option<Id> = response.ctx.data(|data| data.get_temp(entry_focus()));
        if entry != Some(response.id) {
            response.scroll_to_me(None);
        }
        response
            .ctx
            .data_mut(|data| data.remove::<Id>(entry_focus()));
    }
}

fn button_font(weight: Weight) -> FontId {
    match weight {
        Weight::Primary => FontId::new(BODY, theme::strong()),
        Weight::Secondary | Weight::Aside => FontId::new(BODY, FontFamily::Proportional),
    }
}

fn button_width(ui: &Ui, text: &str) -> f32 {
    let galley = ui.painter().layout_no_wrap(
        text.to_owned(),
        button_font(Weight::Primary),
        Color32::BLACK,
    );
    (galley.size().x + 36.0).max(96.0).ceil()
}

/// A button inside a page's body.
pub fn button(ui: &mut Ui, text: &str) -> Response {
    let size = vec2(button_width(ui, text), BUTTON_HEIGHT - 4.0);
    let (_, rect) = ui.allocate_space(size);
    button_at(ui, rect, text, Weight::Secondary)
}

fn button_at(ui: &Ui, rect: Rect, text: &str, weight: Weight) -> Response {
    let response = ui.interact(rect, Id::unique(("button", text)), Sense::click());
    response.widget_info(|| WidgetInfo::labeled(Role::Button, true, text));
    follow_focus(&response);
    let palette = Palette::of(ui);
    let pressed = response.is_pointer_button_down_on();
    let hovered = response.hovered();
    let (fill, ink, line) = match weight {
        Weight::Primary => {
            let fill = match (pressed, hovered) {
                (true, _) => palette.accent_pressed,
                (_, true) => palette.accent_hovered,
                _ => palette.accent,
            };
            (fill, palette.on_accent, Stroke::NONE)
        }
        Weight::Secondary | Weight::Aside => {
            let fill = match (pressed, hovered) {
                (true, _) => palette.pressed,
                (_, true) => palette.hovered,
                _ => palette.card,
            };
            (fill, palette.text, Stroke::new(1.0, palette.border))
        }
    };
    let painter = ui.painter();
    painter.rect(rect, CONTROL_RADIUS, fill, line, StrokeKind::Inside);
    let galley = painter.layout_no_wrap(text.to_owned(), button_font(weight), ink);
    painter.galley(rect.center() - galley.size() / 2.0, galley, ink);
    focus_ring(ui, &response, rect, CONTROL_RADIUS + 3);
    response
}

fn focus_ring(ui: &Ui, response: &Response, rect: Rect, radius: u8) {
    if response.has_focus() {
        let stroke = Stroke::new(2.0, Palette::of(ui).accent_text);
        ui.painter()
            .rect_stroke(rect.expand(3.0), radius, stroke, StrokeKind::Middle);
    }
}

/// Writes what egui does not know into a widget's node for screen readers.
pub fn describe(ui: &Ui, response: &Response, write: impl FnOnce(&mut Node)) {
    ui.ctx().accesskit_node_builder(response.id, write);
}

/// Words that are read out when they appear or change.
pub fn announce(ui: &Ui, response: &Response, words: &str, urgent: bool) {
    describe(ui, response, |node| {
        node.set_role(if urgent { Role::Alert } else { Role::Status });
        node.set_label(words);
        node.set_live(if urgent {
            Live::Assertive
        } else {
            Live::Polite
        });
    });
}

pub fn text(ui: &mut Ui, words: &str, size: f32, color: Color32) -> Response {
    let words = RichText::new(words)
        .font(FontId::new(size, FontFamily::Proportional))
        .color(color);
    ui.add(Label::new(words).wrap())
}

pub fn strong(ui: &mut Ui, words: &str, size: f32, color: Color32) -> Response {
    let words = RichText::new(words)
        .font(FontId::new(size, theme::strong()))
        .color(color);
    ui.add(Label::new(words).wrap())
}

pub fn body(ui: &mut Ui, words: &str) -> Response {
    let color = Palette::of(ui).text;
    text(ui, words, BODY, color)
}

pub fn small(ui: &mut Ui, words: &str) -> Response {
    let color = Palette::of(ui).weak;
    text(ui, words, SMALL, color)
}

/// The name of a part of a page.
pub fn heading(ui: &mut Ui, words: &str) -> Response {
    let color = Palette::of(ui).text;
    let response = strong(ui, words, HEADING, color);
    describe(ui, &response, |node| {
        node.set_role(Role::Heading);
        node.set_label(words);
        node.set_level(2);
    });
    response
}

pub fn card<R>(ui: &mut Ui, content: impl FnOnce(&mut Ui) -> R) -> R {
    let palette = Palette::of(ui);
    let narrow = ui.available_width() < 400.0;
    Frame::new()
        .fill(palette.card)
        .stroke(Stroke::new(1.0, palette.line))
        .corner_radius(CARD_RADIUS)
        .inner_margin(if narrow { 14 } else { 20 })
        .show(ui, |ui| {
            ui.set_width(ui.available_width());
            content(ui)
        })
        .inner
}

/// What kind of news a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Good,
    Warning,
    Bad,
}

impl Tone {
    pub fn ink(self, palette: &Palette) -> Color32 {
        match self {
            Self::Good => palette.accent_text,
            Self::Warning => palette.warning,
            Self::Bad => palette.danger,
        }
    }

    fn soft(self, palette: &Palette) -> Color32 {
        match self {
            Self::Good => palette.accent_soft,
            Self::Warning => palette.warning_soft,
            Self::Bad => palette.danger_soft,
        }
    }
}

/// A painted mark, and content beside it. What it means is in the words, too.
pub fn marked(ui: &mut Ui, tone: Tone, content: impl FnOnce(&mut Ui)) {
    let palette = Palette::of(ui);
    ui.horizontal_top(|ui| {
        ui.spacing_mut().item_spacing.x = 12.0;
        let (_, rect) = ui.allocate_space(vec2(22.0, 22.0));
        let (ink, on) = (tone.ink(palette), palette.card);
        match tone {
            Tone::Good => theme::paint_tick(ui.painter(), rect.center(), 11.0, ink, on),
            Tone::Warning | Tone::Bad => {
                theme::paint_mark(ui.painter(), rect.center(), 11.0, ink, on);
            }
        }
        ui.vertical(|ui| {
            ui.spacing_mut().item_spacing.y = 6.0;
            content(ui);
        });
    });
}

/// A coloured box with a sentence that is read out.
pub fn banner(ui: &mut Ui, tone: Tone, words: &str) {
    let palette = Palette::of(ui);
    Frame::new()
        .fill(tone.soft(palette))
        .corner_radius(CONTROL_RADIUS)
        .inner_margin(Margin::symmetric(14, 10))
        .show(ui, |ui| {
            ui.set_width(ui.available_width());
            let response = text(ui, words, BODY, tone.ink(palette));
            announce(ui, &response, words, tone == Tone::Bad);
        });
}

/// A short word in a coloured pill.
pub fn pill(ui: &mut Ui, tone: Tone, words: &str) {
    let palette = Palette::of(ui);
    Frame::new()
        .fill(tone.soft(palette))
        .corner_radius(20)
        .inner_margin(Margin::symmetric(10, 3))
        .show(ui, |ui| {
            strong(ui, words, SMALL, tone.ink(palette));
        });
}

/// A text field with its name above it, and a note or an error below.
pub struct Field<'a> {
    pub id: &'static str,
    pub name: &'a str,
    pub note: Option<&'a str>,
    pub error: Option<&'a str>,
    pub read_only: bool,
    pub password: bool,
}

impl<'a> Field<'a> {
    pub fn new(id: &'static str, name: &'a str) -> Self {
        Self {
            id,
            name,
            note: None,
            error: None,
            read_only: false,
            password: false,
        }
    }

    pub fn note(self, note: &'a str) -> Self {
        let note = Some(note);
        Self { note, ..self }
    }

    pub fn error(self, error: Option<&'a str>) -> Self {
        Self { error, ..self }
    }

    pub fn password(self) -> Self {
        Self {
            password: true,
            ..self
        }
    }

    pub fn read_only(self, read_only: bool) -> Self {
        Self { read_only, ..self }
    }

    pub fn show(&self, ui: &mut Ui, value: &mut dyn TextBuffer) -> Response {
        let palette = Palette::of(ui);
        ui.vertical(|ui| {
            ui.spacing_mut().item_spacing.y = 6.0;
            let name = strong(ui, self.name, SMALL, palette.text);
            let id = Id::unique(("field", self.id));
            let focused = ui.memory(|memory| memory.has_focus(id));
            let (fill, line) = match (self.read_only, self.error.is_some(), focused) {
                (_, _, true) => (palette.card, Stroke::new(2.0, palette.accent_text)),
                (_, true, _) => (palette.card, Stroke::new(1.0, palette.danger)),
                (true, ..) => (palette.window, Stroke::new(1.0, palette.line)),
                _ => (palette.card, Stroke::new(1.0, palette.border)),
            };
            let shown = Frame::new()
                .fill(fill)
                .corner_radius(CONTROL_RADIUS)
                .inner_margin(Margin::symmetric(12, 10))
                .show(ui, |ui| {
                    let width = ui.available_width();
                    let mut fixed = value.as_str().to_owned();
                    let mut unchanging = fixed.as_str();
                    let buffer: &mut dyn TextBuffer = if self.read_only {
                        &mut unchanging
                    } else {
                        value
                    };
                    let edit = TextEdit::singleline(buffer)
                        .id(id)
                        .frame(Frame::NONE)
                        .margin(Margin::ZERO)
                        .password(self.password)
                        // A password is bounded by what holds it, and never cut.
                        .char_limit(if self.password { usize::MAX } else { 256 })
                        .text_color(if self.read_only {
                            palette.weak
                        } else {
                            palette.text
                        })
                        .desired_width(width);
                    let response = edit.show(ui).response.response;
                    if self.password {
                        wipe(&mut fixed);
                        forget_history(ui.ctx(), id);
                    }
                    response
                });
            ui.painter().rect_stroke(
                shown.response.rect,
                CONTROL_RADIUS,
                line,
                StrokeKind::Inside,
            );
            let response = shown.inner.labelled_by(name.id);
            follow_focus(&response);
            let below = match (self.error, self.note) {
                (Some(error), _) => {
                    let below = text(ui, error, SMALL, palette.danger);
                    announce(ui, &below, error, true);
                    Some(below)
                }
                (None, Some(note)) => Some(small(ui, note)),
                (None, None) => None,
            };
            describe(ui, &response, |node| {
                if let Some(below) = &below {
                    node.push_described_by(below.id.accesskit_id());
                }
                if self.read_only {
                    node.set_read_only();
                }
                if self.password {
                    node.set_role(Role::PasswordInput);
                }
                if self.error.is_some() {
                    node.set_invalid(egui::accesskit::Invalid::True);
                }
            });
            response
        })
        .inner
    }
}

fn wipe(text: &mut String) {
    use zeroize::Zeroize as _;
    text.zeroize();
}

/// egui remembers what was typed, to take it back.
fn forget_history(ctx: &egui::Context, id: Id) {
    if let Some(mut state) = TextEdit::load_state(ctx, id) {
        state.clear_undoer();
        TextEdit::store_state(ctx, id, state);
    }
}

/// Two fields beside each other, or one below the other where there is no room.
pub fn beside(ui: &mut Ui, one: impl FnOnce(&mut Ui), other: impl FnOnce(&mut Ui)) {
    if ui.available_width() < 440.0 {
        one(ui);
        ui.add_space(6.0);
        other(ui);
    } else {
        ui.spacing_mut().item_spacing.x = 14.0;
        ui.columns(2, |columns| {
            one(&mut columns[0]);
            other(&mut columns[1]);
        });
    }
}

/// A name and its value; the value on a line of its own where there is no room.
pub fn row(ui: &mut Ui, name: &str, value: &str) {
    let palette = Palette::of(ui);
    let write = |ui: &mut Ui| {
        let name = text(ui, name, BODY, palette.weak);
        (name, ui.available_width())
    };
    if ui.available_width() < 400.0 {
        ui.vertical(|ui| {
            ui.spacing_mut().item_spacing.y = 1.0;
            let (name, _) = write(ui);
            body(ui, value).labelled_by(name.id);
        });
        ui.add_space(2.0);
        return;
    }
    ui.horizontal_top(|ui| {
        let start = ui.cursor().left();
        let column = (ui.available_width() * 0.33).clamp(150.0, 220.0);
        let (name, _) = ui
            .allocate_ui(vec2(column, 0.0), |ui| {
                ui.set_width(column);
                write(ui)
            })
            .inner;
        ui.add_space((start + column + 10.0 - ui.cursor().left()).max(0.0));
        ui.vertical(|ui| body(ui, value).labelled_by(name.id));
    });
}

/// The certificate's life as a bar, with its ends.
pub fn life(ui: &mut Ui, over: f32, tone: Tone, name: &str, value: &str, ends: [&str; 2]) {
    let palette = Palette::of(ui);
    let (_, place) = ui.allocate_space(vec2(ui.available_width(), 18.0));
    let rect = Rect::from_center_size(place.center(), vec2(place.width(), 8.0));
    theme::paint_life(ui.painter(), rect, over, tone.ink(palette), palette);
    let bar = ui.interact(place, Id::unique("life"), Sense::hover());
    bar.widget_info(|| WidgetInfo::labeled(Role::ProgressIndicator, true, name));
    describe(ui, &bar, |node| {
        node.set_role(Role::Meter);
        node.set_numeric_value(f64::from((over * 100.0).round()));
        node.set_min_numeric_value(0.0);
        node.set_max_numeric_value(100.0);
        node.set_value(value);
    });
    if ui.available_width() < 260.0 {
        small(ui, ends[0]);
        small(ui, ends[1]);
        return;
    }
    ui.horizontal(|ui| {
        small(ui, ends[0]);
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            small(ui, ends[1]);
        });
    });
}

/// One step of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    Done,
    Running,
    Ahead,
}

pub fn step(ui: &mut Ui, words: &str, state: StepState, said: &str) {
    let palette = Palette::of(ui);
    ui.horizontal_top(|ui| {
        ui.spacing_mut().item_spacing.x = 12.0;
        let (_, rect) = ui.allocate_space(vec2(22.0, 22.0));
        let center = rect.center();
        let color = match state {
            StepState::Done => {
                theme::paint_tick(
                    ui.painter(),
                    center,
                    10.0,
                    palette.accent_text,
                    palette.card,
                );
                palette.text
            }
            StepState::Running => {
                spinner(ui, center, 9.0);
                palette.text
            }
            StepState::Ahead => {
                let ring = Stroke::new(1.5, palette.border);
                ui.painter().circle_stroke(center, 9.0, ring);
                palette.weak
            }
        };
        let response = if state == StepState::Running {
            strong(ui, words, BODY, color)
        } else {
            text(ui, words, BODY, color)
        };
        describe(ui, &response, |node| node.set_value(said));
    });
}

/// Turns, ten times a second: enough to see that something happens.
fn spinner(ui: &Ui, center: egui::Pos2, radius: f32) {
    let palette = Palette::of(ui);
    ui.painter()
        .circle_stroke(center, radius, Stroke::new(2.5, palette.track));
    let time = ui.input(|input| input.time) as f32;
    let arc = (0..=16).map(|part| {
        let angle = time * 5.0 + part as f32 * 0.1;
        center + egui::Vec2::angled(angle) * radius
    });
    ui.painter().add(egui::Shape::line(
        arc.collect(),
        Stroke::new(2.5, palette.accent_text),
    ));
    ui.ctx()
        .request_repaint_after(std::time::Duration::from_millis(40));
}

/// How far work is.
pub fn progress(ui: &mut Ui, done: f32, name: &str, value: &str) {
    let palette = Palette::of(ui);
    let (_, rect) = ui.allocate_space(vec2(ui.available_width(), 6.0));
    ui.painter().rect_filled(rect, 3.0, palette.track);
    let width = (rect.width() * done.clamp(0.0, 1.0)).max(6.0);
    let part = Rect::from_min_size(rect.min, vec2(width, rect.height()));
    ui.painter().rect_filled(part, 3.0, palette.accent_text);
    let bar = ui.interact(rect, Id::unique("progress"), Sense::hover());
    bar.widget_info(|| WidgetInfo::labeled(Role::ProgressIndicator, true, name));
    describe(ui, &bar, |node| {
        node.set_numeric_value(f64::from((done * 100.0).round()));
        node.set_min_numeric_value(0.0);
        node.set_max_numeric_value(100.0);
        node.set_value(value);
        node.set_live(Live::Polite);
    });
}

/// A line that folds something away below it.
pub fn fold(ui: &mut Ui, words: &str, open: &mut bool) {
    let palette = Palette::of(ui);
    let font = FontId::new(BODY, FontFamily::Proportional);
    let galley = ui.painter().layout(
        words.to_owned(),
        font,
        palette.text,
        ui.available_width() - 24.0,
    );
    let size = galley.size() + vec2(24.0, 8.0);
    let (_, rect) = ui.allocate_space(size);
    let response = ui.interact(rect, Id::unique(("fold", words)), Sense::click());
    if response.clicked() {
        *open = !*open;
    }
    response.widget_info(|| WidgetInfo::labeled(Role::Button, true, words));
    describe(ui, &response, |node| node.set_expanded(*open));
    follow_focus(&response);
    let center = pos2(rect.left() + 8.0, rect.center().y);
    let at = |x: f32, y: f32| center + vec2(x, y);
    let triangle = if *open {
        [at(-5.0, -2.5), at(5.0, -2.5), at(0.0, 4.0)]
    } else {
        [at(-2.5, -5.0), at(4.0, 0.0), at(-2.5, 5.0)]
    };
    ui.painter().add(egui::Shape::convex_polygon(
        triangle.into(),
        palette.weak,
        Stroke::NONE,
    ));
    let place = pos2(rect.left() + 24.0, rect.center().y - galley.size().y / 2.0);
    ui.painter().galley(place, galley, palette.text);
    focus_ring(ui, &response, rect.shrink2(vec2(0.0, 2.0)), CONTROL_RADIUS);
}

/// Text to compare or to copy, letter by letter.
pub fn code(ui: &mut Ui, words: &str) -> Response {
    let palette = Palette::of(ui);
    Frame::new()
        .fill(palette.window)
        .stroke(Stroke::new(1.0, palette.line))
        .corner_radius(CONTROL_RADIUS)
        .inner_margin(Margin::symmetric(12, 10))
        .show(ui, |ui| {
            ui.set_width(ui.available_width());
            let words = RichText::new(words)
                .font(FontId::new(SMALL, FontFamily::Monospace))
                .color(palette.text);
            ui.add(Label::new(words).wrap())
        })
        .inner
}

/// A number in a circle, and what it stands for.
pub fn numbered(ui: &mut Ui, number: u8, words: &str) {
    let palette = Palette::of(ui);
    ui.horizontal_top(|ui| {
        ui.spacing_mut().item_spacing.x = 12.0;
        let (_, rect) = ui.allocate_space(vec2(26.0, 26.0));
        ui.painter()
            .circle_filled(rect.center(), 13.0, palette.accent_soft);
        let font = FontId::new(SMALL, theme::strong());
        ui.painter().text(
            rect.center(),
            egui::Align2::CENTER_CENTER,
            number.to_string(),
            font,
            palette.accent_text,
        );
        ui.vertical(|ui| {
            ui.add_space(3.0);
            body(ui, words);
        });
    });
}

/// A spinner and words beside it.
pub fn waiting(ui: &mut Ui, words: &str) {
    ui.horizontal_top(|ui| {
        ui.spacing_mut().item_spacing.x = 14.0;
        let (_, rect) = ui.allocate_space(vec2(22.0, 22.0));
        spinner(ui, rect.center(), 9.0);
        let response = body(ui, words);
        announce(ui, &response, words, false);
    });
}
