//! Reads a page of metrics in Prometheus' text format.

/// Returns the sum of the samples of `metric` that have all these labels, or 0 if there are none.
pub fn sum(page: &str, metric: &str, labels: &[(&str, &str)]) -> f64 {
    page.lines()
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, set) = series.split_once('{').unwrap_or((series, ""));
            let wanted = name == metric
                && labels.iter().all(|(label, value)| {
                    let label = format!("{label}=\"{value}\"");
                    set.trim_end_matches('}').split(',').any(|pair| pair == label)
                });
            wanted.then(|| value.parse::<f64>().ok()).flatten()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn samples_are_added_up_by_name_and_labels() {
        let page = "# TYPE a counter\na{x=\"1\",y=\"2\"} 3\na{x=\"2\",y=\"2\"} 4\nab 100\nb 0.5\n";
        assert_eq!(sum(page, "a", &[]), 7.0);
        assert_eq!(sum(page, "a", &[("x", "2")]), 4.0);
        assert_eq!(sum(page, "a", &[("x", "2"), ("y", "1")]), 0.0);
        assert_eq!(sum(page, "b", &[]), 0.5);
        assert_eq!(sum(page, "none", &[]), 0.0);
    }
}
