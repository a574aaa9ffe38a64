//! The table, and the points of the picture.

use std::fmt::Display;

/// Rows are printed when they are known. A row whose result differs from the expected one counts as a failure.
#[derive(Debug, Default)]
pub struct Report {
    pub failures: usize,
}

impl Report {
    pub fn head(&self) {
        println!("\n| measure | connections | expected | came |\n|---|---|---|---|");
    }

    /// A row whose result is checked.
    pub fn check(&mut self, measure: &str, count: usize, expected: impl Display, came: impl Display, is_met: bool) {
        let mark = if is_met { "" } else { " **differs**" };
        self.failures += usize::from(!is_met);
        println!("| {measure} | {} | {expected} | {came}{mark} |", grouped(count));
    }

    /// A row whose result depends on the machine.
    pub fn tell(&self, measure: &str, count: usize, expected: impl Display, came: impl Display) {
        println!("| {measure} | {} | {expected} | {came} |", grouped(count));
    }

    /// A point of the picture: the server's CPU time of an operation in microseconds.
    pub fn point(&self, series: &str, count: usize, micros: f64) {
        println!("point|{series}|{count}|{micros:.4}");
    }
}

/// A number with commas between thousands.
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
