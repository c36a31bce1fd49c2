//! Pixels that a chart is drawn on. The letters are in the binary: nothing of the system's is asked for.

use std::convert::Infallible;

use anyhow::Result;
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
    text_anchor::{HPos, VPos},
};

/// How wide a canvas is, in pixels.
pub(crate) const WIDTH: u32 = 1200;
/// And how high.
pub(crate) const HEIGHT: u32 = 800;

const WEIGHT: FontWeight = FontWeight::Regular;
const LETTERS: RasterHeight = RasterHeight::Size16;

/// An image in the making.
pub(crate) struct Image {
    /// Red, green and blue of each pixel, row by row.
    pixels: Vec<u8>,
}

/// Draws on an image.
pub(crate) struct Canvas<'a>(&'a mut [u8]);

impl Image {
    /// A white one.
    pub(crate) fn new() -> Self {
        Self { pixels: vec![255; WIDTH as usize * HEIGHT as usize * 3] }
    }

    pub(crate) fn canvas(&mut self) -> Canvas<'_> {
        Canvas(&mut self.pixels)
    }

    /// The image as a PNG.
    pub(crate) fn png(&self) -> Result<Vec<u8>> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, WIDTH, HEIGHT);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        writer.finish()?;
        Ok(file)
    }
}

/// How large a text is before it is turned.
fn extent(text: &str) -> (i32, i32) {
    let pixels = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    (pixels(text.chars().count() * get_raster_width(WEIGHT, LETTERS)), pixels(LETTERS.val()))
}

impl DrawingBackend for Canvas<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        (WIDTH, HEIGHT)
    }

    fn ensure_prepared(&mut self) -> Result<(), DrawingErrorKind<Infallible>> {
        Ok(())
    }

    fn present(&mut self) -> Result<(), DrawingErrorKind<Infallible>> {
        Ok(())
    }

    /// What lies outside is not drawn.
    fn draw_pixel(&mut self, (x, y): BackendCoord, color: BackendColor) -> Result<(), DrawingErrorKind<Infallible>> {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return Ok(()) };
        if x >= WIDTH as usize || y >= HEIGHT as usize {
            return Ok(());
        }
        let (red, green, blue) = color.rgb;
        let place = (y * WIDTH as usize + x) * 3;
        for (below, above) in self.0[place..place + 3].iter_mut().zip([red, green, blue]) {
            let mixed = f64::from(*below) * (1.0 - color.alpha) + f64::from(above) * color.alpha;
            *below = mixed.round().clamp(0.0, 255.0) as u8;
        }
        Ok(())
    }

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        (x, y): BackendCoord,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        let (width, height) = extent(text);
        let left = match style.anchor().h_pos {
            HPos::Left => 0,
            HPos::Center => -width / 2,
            HPos::Right => -width,
        };
        let top = match style.anchor().v_pos {
            VPos::Top => 0,
            VPos::Center => -height / 2,
            VPos::Bottom => -height,
        };
        let color = style.color();
        let mut column = left;
        for letter in text.chars() {
            // A letter that there is no picture of is left out: what we write is ASCII.
            let Some(raster) = get_raster(letter, WEIGHT, LETTERS) else { continue };
            for (row, line) in (top..).zip(raster.rows()) {
                for (column, intensity) in (column..).zip(line).filter(|(_, intensity)| **intensity > 0) {
                    let (dx, dy) = style.transform().transform(column, row);
                    let alpha = color.alpha * f64::from(*intensity) / 255.0;
                    self.draw_pixel((x + dx, y + dy), BackendColor { alpha, ..color.color() })?;
                }
            }
            column += extent("m").0;
        }
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        _: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        let (width, height) = extent(text);
        Ok((width.unsigned_abs(), height.unsigned_abs()))
    }
}
