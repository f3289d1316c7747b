//! The sustained load over time, as a picture.

use std::fmt::Write as _;

/// One curve, with its own scale that begins at 0.
pub(crate) struct Curve {
    /// Title and unit.
    pub(crate) name: &'static str,
    /// Points: seconds since the start, and value.
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 800.0;
/// Margins left of the curves, for the scales, and right of them.
const MARGIN: f64 = 60.0;
/// Height of a curve.
const HEIGHT: f64 = 120.0;
/// Vertical distance of two curves.
const STEP: f64 = HEIGHT + 50.0;

/// Draws the curves below each other over the same time axis.
pub(crate) fn svg(curves: &[Curve]) -> String {
    let height = STEP.mul_add(small(curves.len()), 10.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#777\">\n"
    );
    for (at, curve) in curves.iter().enumerate() {
        curve.draw(STEP.mul_add(small(at), 30.0), &mut svg);
    }
    svg.push_str("</svg>\n");
    svg
}

impl Curve {
    fn draw(&self, top: f64, svg: &mut String) {
        let longest = self.points.iter().fold(0.0_f64, |most, (after, _)| most.max(*after));
        let most = self.points.iter().fold(0.0_f64, |most, (_, value)| most.max(*value));
        let bottom = top + HEIGHT;
        let points: Vec<_> = self
            .points
            .iter()
            .map(|(after, value)| {
                let x = MARGIN + after / longest * 2.0_f64.mul_add(-MARGIN, WIDTH);
                format!("{x:.1},{:.1}", bottom - value / most * HEIGHT)
            })
            .collect();
        // Writing into a string does not fail.
        let _ = writeln!(
            svg,
            "<text x=\"{MARGIN}\" y=\"{}\">{}</text>\n\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{most:.0}</text>\n\
             <text x=\"{}\" y=\"{bottom}\" text-anchor=\"end\">0</text>\n\
             <text x=\"{}\" y=\"{bottom}\">{longest:.0} s</text>\n\
             <path d=\"M{MARGIN},{top}V{bottom}H{}\" fill=\"none\" stroke=\"#777\"/>\n\
             <polyline points=\"{}\" fill=\"none\" stroke=\"#4a7fb5\" stroke-width=\"1.5\"/>",
            top - 8.0,
            self.name,
            MARGIN - 4.0,
            top + 10.0,
            MARGIN - 4.0,
            WIDTH - MARGIN + 4.0,
            WIDTH - MARGIN,
            points.join(" ")
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "there are a handful of curves")]
fn small(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_point_is_at_the_top_and_the_last_at_the_right() {
        let curve = Curve { name: "a second", points: vec![(10.0, 50.0), (20.0, 25.0)] };
        assert!(svg(&[curve]).contains("points=\"400.0,30.0 740.0,90.0\""));
    }
}
