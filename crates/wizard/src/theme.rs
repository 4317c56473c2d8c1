//! How the windows look: colours for light and dark, one accent, a type scale, the platform's interface
//! font, and the certificate as a painted picture. No font and no picture is in a file of ours.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use egui::epaint::text::VariationCoords;
use egui::epaint::{CubicBezierShape, PathShape};
use egui::style::{ScrollStyle, Selection, WidgetVisuals};
use egui::{
    Color32, CornerRadius, FontData, FontDefinitions, FontFamily, FontId, Painter, Pos2, Rect,
    Shape, Stroke, StrokeKind, TextStyle, Theme, Ui, Vec2, pos2, vec2,
};

use crate::desktop;

/// Colours by what they are for. Text has a contrast of 4.5 and more, borders of fields of 3 (WCAG 2.2).
#[derive(Debug, Clone, Copy)]
pub struct Palette {
    pub window: Color32,
    pub card: Color32,
    pub footer: Color32,
    /// Of cards: decoration.
    pub line: Color32,
    /// Of fields and buttons: what shows where they are.
    pub border: Color32,
    pub text: Color32,
    pub weak: Color32,
    pub accent: Color32,
    pub accent_hovered: Color32,
    pub accent_pressed: Color32,
    pub on_accent: Color32,
    /// The accent as text and line.
    pub accent_text: Color32,
    pub accent_soft: Color32,
    pub hovered: Color32,
    pub pressed: Color32,
    pub warning: Color32,
    pub warning_soft: Color32,
    pub danger: Color32,
    pub danger_soft: Color32,
    pub track: Color32,
}

const fn rgb(hex: u32) -> Color32 {
    Color32::from_rgb((hex >> 16) as u8, (hex >> 8) as u8, hex as u8)
}

pub const LIGHT: Palette = Palette {
    window: rgb(0xF6_F7F8),
    card: rgb(0xFF_FFFF),
    footer: rgb(0xEC_EEF0),
    line: rgb(0xDD_E1E5),
    border: rgb(0x84_8E98),
    text: rgb(0x17_1C21),
    weak: rgb(0x56_606A),
    accent: rgb(0x0F_766E),
    accent_hovered: rgb(0x0C_655E),
    accent_pressed: rgb(0x0A_544E),
    on_accent: rgb(0xFF_FFFF),
    accent_text: rgb(0x0F_766E),
    accent_soft: rgb(0xDC_F1EE),
    hovered: rgb(0xF2_F5F6),
    pressed: rgb(0xE6_EAEC),
    warning: rgb(0x8F_5200),
    warning_soft: rgb(0xFD_F0DC),
    danger: rgb(0xB4_2318),
    danger_soft: rgb(0xFD_E9E7),
    track: rgb(0xE1_E5E8),
};

pub const DARK: Palette = Palette {
    window: rgb(0x15_181B),
    card: rgb(0x1D_2125),
    footer: rgb(0x10_1315),
    line: rgb(0x2F_353B),
    border: rgb(0x6E_7881),
    text: rgb(0xEC_EFF1),
    weak: rgb(0xA4_AEB7),
    accent: rgb(0x11_7A71),
    accent_hovered: rgb(0x14_8A80),
    accent_pressed: rgb(0x0E_6860),
    on_accent: rgb(0xFF_FFFF),
    accent_text: rgb(0x4F_D1C2),
    accent_soft: rgb(0x12_3A37),
    hovered: rgb(0x28_2D32),
    pressed: rgb(0x32_383E),
    warning: rgb(0xF2_B254),
    warning_soft: rgb(0x3B_2B12),
    danger: rgb(0xFF_9186),
    danger_soft: rgb(0x40_1E1B),
    track: rgb(0x33_3A40),
};

impl Palette {
    pub fn of(ui: &Ui) -> &'static Self {
        if ui.visuals().dark_mode {
            &DARK
        } else {
            &LIGHT
        }
    }
}

/// The type scale, in points.
pub const TITLE: f32 = 23.0;
pub const HEADING: f32 = 16.0;
pub const BODY: f32 = 14.5;
pub const SMALL: f32 = 13.0;

/// Between the window's edge and its content.
pub const MARGIN: f32 = 28.0;
pub const CARD_RADIUS: u8 = 12;
pub const CONTROL_RADIUS: u8 = 8;

/// The family of titles and names of fields.
pub fn strong() -> FontFamily {
    FontFamily::Name("strong".into())
}

/// Sets fonts and styles; the desktop's colours are set apart ([`Scheme`]).
pub fn apply(ctx: &egui::Context, fonts: FontDefinitions) {
    ctx.set_fonts(fonts);
    for (theme, palette) in [(Theme::Light, &LIGHT), (Theme::Dark, &DARK)] {
        ctx.style_mut_of(theme, |style| set_style(style, palette));
    }
}

fn set_style(style: &mut egui::Style, palette: &Palette) {
    style.text_styles = [
        (TextStyle::Heading, FontId::new(TITLE, strong())),
        (TextStyle::Body, FontId::new(BODY, FontFamily::Proportional)),
        (
            TextStyle::Button,
            FontId::new(BODY, FontFamily::Proportional),
        ),
        (
            TextStyle::Small,
            FontId::new(SMALL, FontFamily::Proportional),
        ),
        (
            TextStyle::Monospace,
            FontId::new(SMALL, FontFamily::Monospace),
        ),
    ]
    .into();
    style.spacing.item_spacing = vec2(10.0, 8.0);
    style.spacing.scroll = ScrollStyle {
        bar_width: 8.0,
        ..ScrollStyle::floating()
    };
    style.interaction.selectable_labels = false;
    style.visuals.override_text_color = None;
    style.visuals.weak_text_color = Some(palette.weak);
    style.visuals.panel_fill = palette.window;
    style.visuals.window_fill = palette.card;
    style.visuals.extreme_bg_color = palette.card;
    style.visuals.error_fg_color = palette.danger;
    style.visuals.warn_fg_color = palette.warning;
    style.visuals.hyperlink_color = palette.accent_text;
    style.visuals.text_cursor.stroke = Stroke::new(1.5, palette.accent_text);
    style.visuals.selection = Selection {
        bg_fill: palette.accent_text.gamma_multiply(0.3),
        stroke: Stroke::new(1.0, palette.text),
    };
    let widgets = &mut style.visuals.widgets;
    for (widget, fill) in [
        (&mut widgets.noninteractive, palette.card),
        (&mut widgets.inactive, palette.border),
        (&mut widgets.hovered, palette.weak),
        (&mut widgets.active, palette.weak),
        (&mut widgets.open, palette.hovered),
    ] {
        *widget = WidgetVisuals {
            bg_fill: fill,
            weak_bg_fill: fill,
            bg_stroke: Stroke::new(1.0, palette.line),
            corner_radius: CornerRadius::same(CONTROL_RADIUS),
            fg_stroke: Stroke::new(1.0, palette.text),
            expansion: 0.0,
        };
    }
}

/// A file of the platform's interface font, and the one for titles, or its weight in a variable font.
struct Face {
    regular: &'static str,
    strong: &'static str,
    variable: bool,
}

const fn face(regular: &'static str, strong: &'static str) -> Face {
    Face {
        regular,
        strong,
        variable: false,
    }
}

const fn variable(file: &'static str) -> Face {
    Face {
        regular: file,
        strong: file,
        variable: true,
    }
}

/// The best first: what desktops set for their interface, then what is nearly everywhere.
const FACES: &[Face] = &[
    variable("/System/Library/Fonts/SFNS.ttf"),
    face(
        "opentype/inter/Inter-Regular.otf",
        "opentype/inter/Inter-SemiBold.otf",
    ),
    face(
        "truetype/inter/Inter-Regular.ttf",
        "truetype/inter/Inter-SemiBold.ttf",
    ),
    face("inter/Inter-Regular.otf", "inter/Inter-SemiBold.otf"),
    variable("adwaita-sans-fonts/AdwaitaSans-Regular.ttf"),
    variable("Adwaita/AdwaitaSans-Regular.ttf"),
    variable("opentype/cantarell/Cantarell-VF.otf"),
    variable("abattis-cantarell-vf-fonts/Cantarell-VF.otf"),
    variable("cantarell/Cantarell-VF.otf"),
    variable("truetype/ubuntu/Ubuntu[wdth,wght].ttf"),
    face(
        "truetype/ubuntu/Ubuntu-R.ttf",
        "truetype/ubuntu/Ubuntu-M.ttf",
    ),
    face(
        "truetype/noto/NotoSans-Regular.ttf",
        "truetype/noto/NotoSans-SemiBold.ttf",
    ),
    face("noto/NotoSans-Regular.ttf", "noto/NotoSans-SemiBold.ttf"),
    variable("google-noto-vf/NotoSans[wght].ttf"),
    face(
        "truetype/noto/NotoSans-Regular.ttf",
        "truetype/noto/NotoSans-Bold.ttf",
    ),
    face(
        "truetype/dejavu/DejaVuSans.ttf",
        "truetype/dejavu/DejaVuSans-Bold.ttf",
    ),
    face("TTF/DejaVuSans.ttf", "TTF/DejaVuSans-Bold.ttf"),
    face(
        "dejavu-sans-fonts/DejaVuSans.ttf",
        "dejavu-sans-fonts/DejaVuSans-Bold.ttf",
    ),
];

/// The platform's interface font in front of egui's own.
pub fn platform_fonts() -> FontDefinitions {
    let mut folders = vec![
        PathBuf::from("/usr/share/fonts"),
        PathBuf::from("/usr/local/share/fonts"),
    ];
    if let Some(home) = std::env::home_dir() {
        folders.push(home.join(".local/share/fonts"));
    }
    fonts_in(&folders)
}

/// Without any of the platform's: egui's own.
pub fn own_fonts() -> FontDefinitions {
    fonts_in(&[])
}

fn fonts_in(folders: &[PathBuf]) -> FontDefinitions {
    let mut fonts = FontDefinitions::default();
    let own = fonts.families[&FontFamily::Proportional].clone();
    fonts.families.insert(strong(), own);
    let found = folders
        .iter()
        .flat_map(|folder| FACES.iter().map(move |face| (folder, face)))
        .find_map(|(folder, face)| read(folder, face));
    if let Some((regular, bold)) = found {
        for (name, data, family) in [
            ("interface", regular, FontFamily::Proportional),
            ("interface-strong", bold, strong()),
        ] {
            fonts.font_data.insert(name.to_owned(), Arc::new(data));
            let family = fonts.families.entry(family).or_default();
            family.insert(0, name.to_owned());
        }
    }
    fonts
}

fn read(folder: &Path, face: &Face) -> Option<(FontData, FontData)> {
    // An absolute one stays so.
    let regular = FontData::from_owned(std::fs::read(folder.join(face.regular)).ok()?);
    let mut strong = if face.variable {
        regular.clone()
    } else {
        FontData::from_owned(std::fs::read(folder.join(face.strong)).ok()?)
    };
    if face.variable {
        strong.tweak.coords = VariationCoords::new([(b"wght", 620.0)]);
    }
    Some((regular, strong))
}

/// Light or dark, as the desktop has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Light,
    Dark,
    /// The toolkit hears it from the system.
    System,
}

impl Scheme {
    pub fn preference(self) -> egui::ThemePreference {
        match self {
            Self::Light => egui::ThemePreference::Light,
            Self::Dark => egui::ThemePreference::Dark,
            Self::System => egui::ThemePreference::System,
        }
    }

    /// What the desktop says; light when nobody does. Waits for programs, so it belongs on a thread.
    pub fn of_desktop() -> Self {
        if cfg!(target_os = "macos") {
            return Self::System;
        }
        match std::env::var("GTK_THEME") {
            Ok(theme) => Self::of(theme.ends_with(":dark")),
            Err(_) => desktop::scheme().unwrap_or(Self::Light),
        }
    }

    fn of(dark: bool) -> Self {
        if dark { Self::Dark } else { Self::Light }
    }
}

/// The certificate: a sheet, and a seal with a leaf.
pub fn paint_certificate(painter: &Painter, rect: Rect, palette: &Palette) {
    painter.rect_filled(rect, rect.width() * 0.26, palette.accent_soft);
    let unit = rect.width() / 48.0;
    let at = |x: f32, y: f32| rect.min + vec2(x, y) * unit;
    let line = Stroke::new(2.0 * unit, palette.accent_text);
    let sheet = Rect::from_min_max(at(11.0, 11.0), at(37.0, 33.0));
    painter.rect_stroke(sheet, 4.0 * unit, line, StrokeKind::Middle);
    for (y, end) in [(18.0, 31.0), (24.0, 22.0)] {
        painter.line_segment([at(17.0, y), at(end, y)], line);
    }
    let seal = at(32.5, 31.5);
    painter.circle_filled(seal, 11.0 * unit, palette.accent_soft);
    painter.circle_filled(seal, 8.5 * unit, palette.accent_text);
    paint_leaf(painter, seal, unit, palette.accent_soft);
}

fn paint_leaf(painter: &Painter, center: Pos2, unit: f32, color: Color32) {
    let at = |x: f32, y: f32| center + vec2(x, y) * unit;
    let (tip, foot) = (at(4.4, -4.4), at(-3.4, 3.4));
    let side = |a: Pos2, b: Pos2, from: Pos2, to: Pos2| {
        CubicBezierShape::from_points_stroke(
            [from, a, b, to],
            false,
            Color32::TRANSPARENT,
            Stroke::NONE,
        )
        .flatten(Some(0.1))
    };
    let mut outline = side(at(-1.5, -5.2), at(-5.8, -1.6), tip, foot);
    outline.extend(side(at(1.6, 5.8), at(5.2, 1.5), foot, tip));
    painter.add(Shape::Path(PathShape::convex_polygon(
        outline,
        color,
        Stroke::NONE,
    )));
    painter.line_segment([at(-5.2, 5.2), foot], Stroke::new(1.6 * unit, color));
}

/// A tick in a circle.
pub fn paint_tick(painter: &Painter, center: Pos2, radius: f32, fill: Color32, tick: Color32) {
    painter.circle_filled(center, radius, fill);
    let at = |x: f32, y: f32| center + Vec2::new(x, y) * radius;
    let points = vec![at(-0.42, 0.02), at(-0.12, 0.34), at(0.44, -0.30)];
    painter.add(Shape::line(points, Stroke::new(radius * 0.22, tick)));
}

/// An exclamation mark in a circle.
pub fn paint_mark(painter: &Painter, center: Pos2, radius: f32, fill: Color32, mark: Color32) {
    painter.circle_filled(center, radius, fill);
    let at = |x: f32, y: f32| center + Vec2::new(x, y) * radius;
    painter.line_segment(
        [at(0.0, -0.48), at(0.0, 0.12)],
        Stroke::new(radius * 0.24, mark),
    );
    painter.circle_filled(at(0.0, 0.46), radius * 0.14, mark);
}

/// How much of the certificate's life is over, from 0 to 1.
pub fn paint_life(painter: &Painter, rect: Rect, over: f32, fill: Color32, palette: &Palette) {
    let radius = rect.height() / 2.0;
    painter.rect_filled(rect, radius, palette.track);
    let end = rect.left() + (rect.width() * over.clamp(0.0, 1.0)).max(rect.height());
    let part = Rect::from_min_max(rect.min, pos2(end, rect.bottom()));
    painter.rect_filled(part, radius, fill);
    if over < 1.0 {
        let today = pos2(end - radius, rect.center().y);
        painter.circle(today, radius + 3.0, palette.card, Stroke::new(2.5, fill));
    }
}

/// The window's icon: the seal with its leaf.
pub fn window_icon() -> egui::IconData {
    const SIDE: u32 = 64;
    let mut rgba = Vec::with_capacity((SIDE * SIDE * 4) as usize);
    for y in 0..SIDE {
        for x in 0..SIDE {
            // From -1 to 1, with the diagonal of the leaf as its axis.
            let (x, y) = (scaled(x, SIDE), scaled(y, SIDE));
            let (along, across) = ((x - y) / 1.414, (x + y) / 1.414);
            let width = 0.42 * (1.0 - (along / 0.72).powi(2));
            let leaf = across.abs() < width && along.abs() < 0.72;
            let stem = across.abs() < 0.06 && (-0.86..0.35).contains(&along);
            let inside = (x * x + y * y).sqrt();
            let alpha = ((0.98 - inside) * 32.0).clamp(0.0, 1.0);
            let color = if leaf != stem {
                [255, 255, 255]
            } else {
                [0x0F, 0x76, 0x6E]
            };
            rgba.extend(color);
            rgba.push((alpha * 255.0) as u8);
        }
    }
    egui::IconData {
        rgba,
        width: SIDE,
        height: SIDE,
    }
}

fn scaled(pixel: u32, side: u32) -> f32 {
    (pixel as f32 + 0.5) / side as f32 * 2.0 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn luminance(color: Color32) -> f32 {
        let linear = |part: u8| {
            let part = f32::from(part) / 255.0;
            if part <= 0.040_45 {
                part / 12.92
            } else {
                ((part + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * linear(color.r()) + 0.7152 * linear(color.g()) + 0.0722 * linear(color.b())
    }

    fn contrast(one: Color32, other: Color32) -> f32 {
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    #[test]
    fn everything_that_is_read_has_enough_contrast() {
        for palette in [LIGHT, DARK] {
            let Palette {
                card,
                window,
                footer,
                ..
            } = palette;
            let pairs = [
                (palette.text, card, 4.5),
                (palette.text, window, 4.5),
                (palette.text, footer, 4.5),
                (palette.text, palette.pressed, 4.5),
                (palette.weak, card, 4.5),
                (palette.weak, window, 4.5),
                (palette.weak, footer, 4.5),
                (palette.on_accent, palette.accent, 4.5),
                (palette.on_accent, palette.accent_pressed, 4.5),
                (palette.on_accent, palette.accent_hovered, 4.0),
                (palette.accent_text, card, 4.5),
                (palette.accent_text, palette.accent_soft, 4.5),
                (palette.warning, card, 4.5),
                (palette.warning, palette.warning_soft, 4.5),
                (palette.danger, card, 4.5),
                (palette.danger, palette.danger_soft, 4.5),
                (palette.border, card, 3.0),
                (palette.border, window, 3.0),
            ];
            for (one, other, least) in pairs {
                let found = contrast(one, other);
                assert!(found >= least, "{one:?} on {other:?}: {found}");
            }
        }
    }

    #[test]
    fn without_a_font_of_the_platform_eguis_own_has_every_family() {
        let fonts = own_fonts();
        assert_eq!(
            fonts.families[&strong()],
            fonts.families[&FontFamily::Proportional]
        );
    }
}
