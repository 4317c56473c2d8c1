//! Paints a window on the CPU: textured triangles, as egui gives them. Enough to look at a page.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use egui::epaint::{ImageDelta, Primitive, Vertex};
use egui::{Color32, ColorImage, FullOutput, ImageData, Rect, TextureId, TexturesDelta};
use image::{Rgba, RgbaImage};

/// What the harness is given keeps the textures; a clone of it paints with them.
#[derive(Clone, Default)]
pub struct Cpu(Rc<RefCell<Textures>>);

#[derive(Default)]
struct Textures(HashMap<TextureId, ColorImage>);

impl egui_kittest::TestRenderer for Cpu {
    fn handle_delta(&mut self, delta: &mut TexturesDelta) {
        let mut textures = self.0.borrow_mut();
        for (id, parts) in delta.set.drain() {
            for part in parts {
                textures.set(id, &part);
            }
        }
        for id in delta.free.drain() {
            textures.0.remove(&id);
        }
    }
}

impl Cpu {
    pub fn paint(&self, ctx: &egui::Context, output: &FullOutput) -> RgbaImage {
        let scale = output.pixels_per_point;
        let size = ctx.content_rect().size() * scale;
        let (width, height) = (size.x.round() as u32, size.y.round() as u32);
        let mut image = RgbaImage::from_pixel(width, height, Rgba([0, 0, 0, 255]));
        let textures = self.0.borrow();
        for part in ctx.tessellate(output.shapes.clone(), scale) {
            let Primitive::Mesh(mesh) = part.primitive else {
                continue;
            };
            let texture = textures.0.get(&mesh.texture_id).expect("a texture");
            let clip = Rect::from_min_max(
                (part.clip_rect.min.to_vec2() * scale).to_pos2(),
                (part.clip_rect.max.to_vec2() * scale).to_pos2(),
            );
            for corners in mesh.indices.chunks_exact(3) {
                let corners = [0, 1, 2].map(|corner| {
                    let mut vertex = mesh.vertices[corners[corner] as usize];
                    vertex.pos = (vertex.pos.to_vec2() * scale).to_pos2();
                    vertex
                });
                triangle(&mut image, texture, clip, &corners);
            }
        }
        image
    }
}

impl Textures {
    fn set(&mut self, id: TextureId, delta: &ImageDelta) {
        let ImageData::Color(new) = &delta.image;
        let Some([left, top]) = delta.pos else {
            self.0.insert(id, (**new).clone());
            return;
        };
        let Some(texture) = self.0.get_mut(&id) else {
            return;
        };
        for y in 0..new.size[1] {
            for x in 0..new.size[0] {
                texture[(left + x, top + y)] = new[(x, y)];
            }
        }
    }
}

fn triangle(image: &mut RgbaImage, texture: &ColorImage, clip: Rect, corners: &[Vertex; 3]) {
    let [a, b, c] = corners.map(|corner| corner.pos);
    let area = (b - a).x * (c - a).y - (b - a).y * (c - a).x;
    if area == 0.0 {
        return;
    }
    let bounds = Rect::from_points(&[a, b, c])
        .intersect(clip)
        .intersect(Rect::from_min_size(
            egui::Pos2::ZERO,
            egui::vec2(image.width() as f32, image.height() as f32),
        ));
    if bounds.is_negative() {
        return;
    }
    let size = egui::vec2(texture.size[0] as f32, texture.size[1] as f32);
    for y in bounds.top().floor() as u32..(bounds.bottom().ceil() as u32).min(image.height()) {
        for x in bounds.left().floor() as u32..(bounds.right().ceil() as u32).min(image.width()) {
            let at = egui::pos2(x as f32 + 0.5, y as f32 + 0.5);
            let part = |one: egui::Pos2, other: egui::Pos2| {
                ((other - one).x * (at - one).y - (other - one).y * (at - one).x) / area
            };
            let weights = [part(b, c), part(c, a), part(a, b)];
            // The edge between two triangles belongs to one of them.
            if weights.iter().any(|weight| *weight < 0.0) || !clip.contains(at) {
                continue;
            }
            let mix = |of: fn(&Vertex) -> f32| {
                let parts = weights.iter().zip(corners);
                parts
                    .map(|(weight, corner)| weight * of(corner))
                    .sum::<f32>()
            };
            let color = [
                mix(|vertex| f32::from(vertex.color.r())),
                mix(|vertex| f32::from(vertex.color.g())),
                mix(|vertex| f32::from(vertex.color.b())),
                mix(|vertex| f32::from(vertex.color.a())),
            ];
            let texel = sample(
                texture,
                mix(|vertex| vertex.uv.x) * size.x,
                mix(|vertex| vertex.uv.y) * size.y,
            );
            let pixel = image.get_pixel_mut(x, y);
            // Colours are premultiplied, and mixed as they are (gamma space), as egui's own painters do.
            let alpha = color[3] * texel[3] / (255.0 * 255.0);
            for channel in 0..3 {
                let over = color[channel] * texel[channel] / 255.0;
                let under = f32::from(pixel.0[channel]) * (1.0 - alpha);
                pixel.0[channel] = (over + under).round().clamp(0.0, 255.0) as u8;
            }
        }
    }
}

/// Between four texels.
fn sample(texture: &ColorImage, x: f32, y: f32) -> [f32; 4] {
    let (x, y) = (x - 0.5, y - 0.5);
    let (left, top) = (x.floor(), y.floor());
    let texel = |x: f32, y: f32| -> [f32; 4] {
        let x = (x.max(0.0) as usize).min(texture.size[0] - 1);
        let y = (y.max(0.0) as usize).min(texture.size[1] - 1);
        let color: Color32 = texture[(x, y)];
        color.to_array().map(f32::from)
    };
    let (right, down) = (x - left, y - top);
    let corners = [
        (texel(left, top), (1.0 - right) * (1.0 - down)),
        (texel(left + 1.0, top), right * (1.0 - down)),
        (texel(left, top + 1.0), (1.0 - right) * down),
        (texel(left + 1.0, top + 1.0), right * down),
    ];
    let mut mixed = [0.0; 4];
    for (corner, weight) in corners {
        for channel in 0..4 {
            mixed[channel] += corner[channel] * weight;
        }
    }
    mixed
}
