//! Prints the table of results, and the points of the picture.

use std::fmt::Display;

/// Prints each row when its result is known. A checked row whose result differs from the expected result counts as a
/// failure.
#[derive(Debug, Default)]
pub struct Report {
    pub failures: usize,
}

impl Report {
    pub fn head(&self) {
        println!("\n| measure | connections | expected | measured |\n|---|---|---|---|");
    }

    /// Prints a row whose result is checked.
    pub fn check(&mut self, measure: &str, count: usize, expected: impl Display, came: impl Display, is_met: bool) {
        let mark = if is_met { "" } else { " **differs**" };
        self.failures += usize::from(!is_met);
        println!("| {measure} | {} | {expected} | {came}{mark} |", grouped(count));
    }

    /// Prints a row whose result depends on the machine, and is not checked.
    pub fn tell(&self, measure: &str, count: usize, expected: impl Display, came: impl Display) {
        println!("| {measure} | {} | {expected} | {came} |", grouped(count));
    }

    /// Prints a point of the picture: the server's CPU time per operation, in microseconds.
    pub fn point(&self, series: &str, count: usize, micros: f64) {
        println!("point|{series}|{count}|{micros:.4}");
    }
}

/// Formats a number with commas between thousands.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([7, 999, 1000, 50_000, 1_000_000].map(grouped), ["7", "999", "1,000", "50,000", "1,000,000"]);
    }
}
