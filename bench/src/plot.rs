//! Latency against the rate of requests, as a picture.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use plotters::prelude::*;

use crate::{
    canvas::{Canvas, Image},
    table::Row,
};

/// A load that was measured at several rates: its name, and each rate with its 50th and 99th percentile.
struct Load<'a> {
    name: &'a str,
    points: Vec<(f64, Duration, Duration)>,
}

/// One for each load; dark for the 50th percentile, light for the 99th.
const COLORS: [(RGBColor, RGBColor); 6] = [
    (RGBColor(0, 82, 155), RGBColor(120, 180, 235)),
    (RGBColor(0, 110, 50), RGBColor(125, 205, 150)),
    (RGBColor(160, 60, 0), RGBColor(245, 175, 115)),
    (RGBColor(90, 40, 140), RGBColor(190, 160, 225)),
    (RGBColor(150, 0, 60), RGBColor(240, 150, 185)),
    (RGBColor(60, 60, 60), RGBColor(170, 170, 170)),
];

/// Says what would keep [`write`] from writing to `file`, before anything is measured.
///
/// # Errors
/// When nothing will have been measured at a rate, or there is no such place.
pub(crate) fn check(file: &Path, has_rates: bool) -> Result<()> {
    ensure!(
        has_rates,
        "there is nothing to plot: --plot shows latency against rate, so give --rate or --sweep as well"
    );
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ensure!(folder.is_dir(), "the plot cannot be written to {}: {} is no folder", file.display(), folder.display());
    ensure!(!file.is_dir(), "the plot cannot be written to {}: it is a folder", file.display());
    Ok(())
}

/// Writes a PNG of all rows that were measured at a fixed rate.
///
/// # Errors
/// When there is no such row, or the file cannot be written.
pub(crate) fn write(file: &Path, rows: &[Row]) -> Result<()> {
    let png = png(&loads(rows))?;
    std::fs::write(file, png).with_context(|| format!("writing the plot {}", file.display()))
}

/// The rows that were measured at a fixed rate, by what was measured.
fn loads(rows: &[Row]) -> Vec<Load<'_>> {
    let mut loads: Vec<Load<'_>> = Vec::new();
    for row in rows {
        let (Some(rate), Some(p50), Some(p99)) = (row.offered, row.at(0.5), row.at(0.99)) else { continue };
        let point = (rate, p50, p99);
        match loads.iter_mut().find(|load| load.name == row.id()) {
            Some(load) => load.points.push(point),
            None => loads.push(Load { name: row.id(), points: vec![point] }),
        }
    }
    for load in &mut loads {
        load.points.sort_by(|one, other| one.0.total_cmp(&other.0));
    }
    loads
}

fn png(loads: &[Load<'_>]) -> Result<Vec<u8>> {
    ensure!(!loads.is_empty(), "there is nothing to plot: nothing was measured at a fixed rate");
    let mut image = Image::new();
    draw(image.canvas(), loads).map_err(|error| anyhow!("drawing the plot: {error}"))?;
    image.png()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The powers of ten between which all times are.
fn bounds(loads: &[Load<'_>]) -> std::ops::Range<f64> {
    let times = || loads.iter().flat_map(|load| &load.points).flat_map(|(_, p50, p99)| [millis(*p50), millis(*p99)]);
    let least = times().fold(f64::MAX, f64::min).max(1e-3);
    let most = times().fold(least, f64::max);
    10f64.powf(least.log10().floor())..10f64.powf((most * 1.01).log10().ceil())
}

fn draw<'a>(canvas: Canvas<'a>, loads: &[Load<'_>]) -> Result<(), Box<dyn std::error::Error + 'a>> {
    let fastest = loads.iter().flat_map(|load| &load.points).fold(1.0, |most: f64, point| most.max(point.0));
    let area = canvas.into_drawing_area();
    let text = ("monospace", 16).into_text_style(&area);
    let mut chart = ChartBuilder::on(&area)
        .margin(24)
        .caption("latency against rate, open loop", text.clone())
        .x_label_area_size(56)
        .y_label_area_size(88)
        .build_cartesian_2d(0.0..fastest * 1.05, bounds(loads).log_scale())?;
    chart
        .configure_mesh()
        .label_style(text.clone())
        .axis_desc_style(text.clone())
        .x_desc("requests sent per second")
        .y_desc("milliseconds from when a request was due until it was answered")
        .x_label_formatter(&|rate| format!("{rate:.0}"))
        .y_label_formatter(&|millis| format!("{millis}"))
        .light_line_style(RGBColor(240, 240, 240))
        .draw()?;
    for (load, (dark, light)) in loads.iter().zip(COLORS.iter().cycle()) {
        let p50: Vec<_> = load.points.iter().map(|(rate, p50, _)| (*rate, millis(*p50))).collect();
        let p99: Vec<_> = load.points.iter().map(|(rate, _, p99)| (*rate, millis(*p99))).collect();
        for (percentile, points, color) in [("p50", p50, *dark), ("p99", p99, *light)] {
            let name = format!("{} {percentile}", load.name.trim_end_matches("_open"));
            chart
                .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| Circle::new((x + 10, y), 5, color.filled()));
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 5, color.filled())))?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(text)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canvas::{HEIGHT, WIDTH};

    /// The pixels of a PNG, each as red, green and blue.
    fn decoded(png: &[u8]) -> Vec<[u8; 3]> {
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height, info.color_type), (WIDTH, HEIGHT, png::ColorType::Rgb));
        pixels.as_chunks::<3>().0.to_vec()
    }

    /// Where pixels of this color are to the right of the legend, from left to right.
    fn places(pixels: &[[u8; 3]], color: RGBColor) -> Vec<(u32, u32)> {
        let place = |index: usize| (index as u32 % WIDTH, index as u32 / WIDTH);
        let colored = pixels.iter().enumerate().filter(|(_, pixel)| **pixel == [color.0, color.1, color.2]);
        let mut places: Vec<_> = colored.map(|(index, _)| place(index)).filter(|(x, _)| *x > WIDTH / 3).collect();
        places.sort_unstable();
        places
    }

    fn row(id: &str, rate: f64, fast_ms: u64, slow_ms: u64) -> Row {
        let mut times = vec![Duration::from_millis(fast_ms); 98];
        times.extend([Duration::from_millis(slow_ms); 2]);
        Row::timed((id, id), Duration::from_secs(1), times).at_rate(rate)
    }

    #[test]
    fn a_plot_shows_both_percentiles_of_each_load_higher_where_they_are_slower() {
        let rows = [
            row("create", 1000.0, 4, 10),
            row("create", 500.0, 2, 4), // rates may come in any order
            row("get", 500.0, 1, 2),
            row("get", 1000.0, 2, 500),
            Row::timed(("list", "not at a fixed rate"), Duration::from_secs(1), vec![Duration::from_secs(900)]),
        ];
        let loads = loads(&rows);
        assert_eq!(loads.iter().map(|load| load.name).collect::<Vec<_>>(), ["create", "get"]);
        let pixels = decoded(&png(&loads).unwrap());
        let mut ends = Vec::new();
        for (dark, light) in &COLORS[..2] {
            for color in [dark, light] {
                let places = places(&pixels, *color);
                let (first, last) = (places[0], places[places.len() - 1]);
                assert!(last.0 - first.0 > WIDTH / 3, "a line from one rate to twice that rate: {first:?} {last:?}");
                assert!(last.1 < first.1, "what takes longer is drawn higher: {first:?} {last:?}");
                ends.push(last);
            }
        }
        let [create, slow_create, get, slow_get] = ends[..] else { panic!("{ends:?}") };
        assert!(slow_get.1 < slow_create.1 && slow_create.1 < create.1 && create.1 < get.1, "{ends:?}");
    }

    #[test]
    fn a_plot_says_what_its_axes_mean() {
        let pixels = decoded(&png(&loads(&[row("create", 500.0, 2, 4)])).unwrap());
        let dark = |from: (u32, u32), to: (u32, u32)| {
            let inside = |x: u32, y: u32| (from.0..to.0).contains(&x) && (from.1..to.1).contains(&y);
            let dark = |(index, pixel): (usize, &[u8; 3])| {
                inside(index as u32 % WIDTH, index as u32 / WIDTH) && pixel.iter().all(|part| *part < 100)
            };
            pixels.iter().enumerate().filter(|pixel| dark(*pixel)).count()
        };
        assert!(dark((0, 0), (60, HEIGHT)) > 500, "the name of the vertical axis, upright");
        assert!(dark((0, HEIGHT - 50), (WIDTH, HEIGHT)) > 300, "the name of the horizontal axis");
        assert!(dark((60, 0), (110, HEIGHT - 80)) > 50, "its numbers");
    }

    #[test]
    fn one_point_and_times_that_are_nothing_can_be_plotted() {
        let rows = [Row::timed(("get", "get"), Duration::from_secs(1), vec![Duration::ZERO]).at_rate(0.0)];
        decoded(&png(&loads(&rows)).unwrap());
    }

    #[test]
    fn who_wants_a_plot_of_nothing_or_into_nowhere_is_told_before_the_run() {
        let why = |file: &str, has_rates| check(Path::new(file), has_rates).unwrap_err().to_string();
        assert!(why("plot.png", false).contains("--rate or --sweep"));
        assert!(why("/no/such/folder/plot.png", true).contains("/no/such/folder is no folder"));
        assert!(why("/", true).contains("it is a folder"));
        check(Path::new("plot.png"), true).unwrap();
        assert!(png(&[]).unwrap_err().to_string().contains("nothing was measured at a fixed rate"));
    }
}
