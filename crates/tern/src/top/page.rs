//! Parses a page of Prometheus metrics, and computes quantiles from histograms. The code is pure.

/// The samples of one process at one moment.
#[derive(Debug, Clone, Default)]
pub struct Page(Vec<Sample>);

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    /// The labels, each as `key="value"`.
    labels: Vec<String>,
    value: f64,
}

impl Page {
    /// Parses a page. Lines that are no sample are ignored.
    pub fn read(text: &str) -> Self {
        Self(text.lines().filter_map(sample).collect())
    }

    /// Returns the sum of the samples of `name` that have all these labels, or `None` if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut values = self.of(name, labels).map(|sample| sample.value).peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// Returns the largest sample of `name` that has all these labels, or `None` if there is none.
    pub fn max(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.of(name, labels).map(|sample| sample.value).reduce(f64::max)
    }

    /// Returns the buckets of a histogram as upper bound and cumulative count, ascending by bound. The counts of
    /// series with the same bound are added up.
    pub fn buckets(&self, name: &str, labels: &[(&str, &str)]) -> Vec<(f64, f64)> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.of(&format!("{name}_bucket"), labels) {
            let bound = sample
                .labels
                .iter()
                .find_map(|label| label.strip_prefix("le=\"")?.strip_suffix('"'));
            let Some(bound) = bound.and_then(|bound| bound.parse::<f64>().ok()) else {
                continue;
            };
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        buckets
    }

    fn of<'a>(&'a self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &'a Sample> + use<'a> {
        let (name, wanted) = (
            name.to_owned(),
            labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")),
        );
        let wanted: Vec<String> = wanted.collect();
        self.0.iter().filter(move |sample| {
            sample.name == name && wanted.iter().all(|label| sample.labels.contains(label))
        })
    }
}

/// Parses a line, as in `up{node="a"} 1`. Returns `None` for a comment, or a line that is no sample.
fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    Some(Sample {
        name: name.to_owned(),
        labels: labels
            .trim_end_matches('}')
            .split(',')
            .map(str::to_owned)
            .collect(),
        value: value.parse().ok()?,
    })
}

/// Returns the quantile `q` (0 to 1) of what a histogram counted between two moments, as the upper bound of the
/// bucket that it falls into. Example: with 9 of 10 values in the bucket up to 0.1 s, the 0.5 quantile is 0.1.
/// Returns `None` if nothing was counted in between, or if a restart has made the counts smaller.
pub fn quantile(before: &[(f64, f64)], now: &[(f64, f64)], q: f64) -> Option<f64> {
    let counted = |bound: f64| {
        before
            .iter()
            .find(|(known, _)| *known == bound)
            .map_or(0.0, |(_, count)| *count)
    };
    let grown: Vec<(f64, f64)> = now
        .iter()
        .map(|(bound, count)| (*bound, count - counted(*bound)))
        .collect();
    let total = grown
        .last()
        .map(|(_, count)| *count)
        .filter(|count| *count > 0.0)?;
    grown
        .into_iter()
        .find(|(_, count)| *count >= q * total)
        .map(|(bound, _)| bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# TYPE jobs counter\njobs{kind=\"commit\",shard=\"0\"} 3\njobs{kind=\"commit\",shard=\"1\"} 4\n\
                        jobs{kind=\"ack\",shard=\"0\"} 9\nup 1\ntook_bucket{le=\"0.1\"} 1\ntook_bucket{le=\"1\"} 5\n\
                        took_bucket{le=\"+Inf\"} 6\nnonsense\n";

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let page = Page::read(PAGE);
        assert_eq!(page.sum("jobs", &[("kind", "commit")]), Some(7.0));
        assert_eq!(page.max("jobs", &[]), Some(9.0));
        assert_eq!(page.sum("up", &[]), Some(1.0));
        assert_eq!(page.sum("job", &[]), None);
        assert_eq!(
            page.buckets("took", &[]),
            [(0.1, 1.0), (1.0, 5.0), (f64::INFINITY, 6.0)]
        );
    }

    #[test]
    fn a_quantile_is_of_what_was_counted_in_between() {
        let before = [(0.1, 10.0), (1.0, 10.0), (f64::INFINITY, 10.0)];
        let now = [(0.1, 11.0), (1.0, 19.0), (f64::INFINITY, 20.0)];
        assert_eq!(quantile(&before, &now, 0.1), Some(0.1));
        assert_eq!(quantile(&before, &now, 0.5), Some(1.0));
        assert_eq!(quantile(&before, &now, 0.99), Some(f64::INFINITY));
        assert_eq!(quantile(&now, &now, 0.5), None);
        assert_eq!(quantile(&[], &[], 0.5), None);
    }
}
