//! Draws the server's CPU time per operation by the number of connections, on logarithmic axes.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use plotters::prelude::*;

use crate::failure;
use crate::report::grouped;

const SIZE: (u32, u32) = (900, 620);

/// One line of the picture: pairs of a number of connections and microseconds.
type Series = Vec<(f64, f64)>;

/// Draws the points in the output of a run.
pub fn draw(table: &Path, svg: &Path) -> io::Result<()> {
    let series = read(&std::fs::read_to_string(table)?);
    render(&series, svg).map_err(|error| failure(format!("{}: {error}", svg.display())))
}

fn read(text: &str) -> BTreeMap<String, Series> {
    let mut series: BTreeMap<String, Series> = BTreeMap::new();
    for line in text.lines() {
        let mut parts = line.trim_end().split('|');
        if let (Some("point"), Some(name), Some(count), Some(micros)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
            && let (Ok(count), Ok(micros)) = (count.parse(), micros.parse::<f64>())
        {
            series.entry(name.to_owned()).or_default().push((count, micros.max(0.01)));
        }
    }
    series
}

fn render(series: &BTreeMap<String, Series>, svg: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let points = || series.values().flatten();
    let range = |of: fn(&(f64, f64)) -> f64| {
        let (low, high) = points().map(of).fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
        (low / 1.5)..(high * 1.5)
    };
    if points().next().is_none() {
        return Err("the output has no points".into());
    }
    let root = SVGBackend::new(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("fdpush: the server's CPU time of an operation", ("sans-serif", 20))
        .margin(15)
        .margin_right(250)
        .x_label_area_size(45)
        .y_label_area_size(65)
        .build_cartesian_2d(range(|point| point.0).log_scale(), range(|point| point.1).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("connections")
        .y_desc("microseconds")
        .x_label_formatter(&|count| grouped(*count as usize))
        .y_label_formatter(&|micros| micros.to_string())
        .light_line_style(WHITE)
        .draw()?;
    for (index, (name, points)) in series.iter().enumerate() {
        let color = HSLColor(index as f64 / series.len() as f64, 0.8, if index % 2 == 0 { 0.3 } else { 0.5 });
        chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3))?;
        // The entries of the legend are to the right of the chart.
        let y = 60 + 28 * index as i32;
        root.draw(&Rectangle::new([(665, y), (680, y + 10)], color.filled()))?;
        root.draw(&Text::new(name.clone(), (688, y), ("sans-serif", 13)))?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_and_drawn() {
        let text = "| a row | 5 |\r\npoint|leave|10000|4.5\r\npoint|leave|50000|4.7\r\npoint|push|10000|9\r\n";
        let series = read(text);
        assert_eq!(series["leave"], [(10_000.0, 4.5), (50_000.0, 4.7)]);
        let svg = std::env::temp_dir().join(format!("million-{}.svg", std::process::id()));
        render(&series, &svg).expect("the picture is drawn");
        let drawn = std::fs::read_to_string(&svg).expect("the picture can be read");
        std::fs::remove_file(&svg).expect("the picture is removed");
        assert!(drawn.starts_with("<svg") && drawn.contains("leave") && drawn.contains("10,000"), "{drawn}");
    }
}
