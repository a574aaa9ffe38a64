//! Suggestions for mistyped words.

/// Returns the most similar name, if at most one letter in three differs.
pub fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    let slips_max = (length / 3).max(1);
    // The distance is at least the difference of the lengths. This check avoids most computations of a distance, whose
    // time is proportional to the product of the lengths.
    let names = names.filter(|name| name.len().abs_diff(length) <= slips_max);
    let near = names.map(|name| (strsim::damerau_levenshtein(word, name), name));
    near.filter(|(slips, _)| *slips <= slips_max).min().map(|(_, name)| name)
}
