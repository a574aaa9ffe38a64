//! Suggestions for mistyped words.

/// Returns the name that is most similar to `word`. Returns `None` if more than one letter and more than a third of the
/// letters differ.
pub fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    let slips_max = (length / 3).max(1);
    // The edit distance of two words is at least the difference of their lengths. So this filter removes names without
    // computing their edit distance. The time to compute an edit distance is proportional to the product of the lengths
    // of both words.
    let names = names.filter(|name| name.len().abs_diff(length) <= slips_max);
    let near = names.map(|name| (strsim::damerau_levenshtein(word, name), name));
    near.filter(|(slips, _)| *slips <= slips_max).min().map(|(_, name)| name)
}
