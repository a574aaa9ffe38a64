//! Mistyped words, and what was meant.

/// The name that was probably meant: a slip in every third letter away, at most.
pub fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    let slips_max = (length / 3).max(1);
    // The distance is at least the difference of the lengths, and takes the time of their product.
    let names = names.filter(|name| name.len().abs_diff(length) <= slips_max);
    let near = names.map(|name| (strsim::damerau_levenshtein(word, name), name));
    near.filter(|(slips, _)| *slips <= slips_max).min().map(|(_, name)| name)
}
