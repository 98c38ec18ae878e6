//! Reads the metrics that a process exports, and the metrics that queries ask for.

use std::collections::{BTreeMap, BTreeSet};

/// One metric, over all pages that were read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Metric {
    pub kind: String,
    pub help: String,
    pub labels: BTreeSet<String>,
    /// The roles that export it.
    pub of: BTreeSet<String>,
}

pub type Metrics = BTreeMap<String, Metric>;

/// Adds the metrics of a page in Prometheus' text format.
pub fn add(metrics: &mut Metrics, of: &str, page: &str) {
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            metrics.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let metric = metrics.entry(name.to_owned()).or_default();
            metric.kind = kind.to_owned();
            metric.of.insert(of.to_owned());
        } else if let Some((series, _)) = line.rsplit_once(' ') {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let metric = metrics.entry(base(metrics, name)).or_default();
            metric.labels.extend(labels_of(labels.trim_end_matches('}')));
            metric.labels.remove("le");
        }
    }
}

/// Returns the metric of a series. A histogram's series have its name with an ending.
pub fn base(metrics: &Metrics, series: &str) -> String {
    let bases = ["_bucket", "_sum", "_count"].map(|end| series.strip_suffix(end));
    let histogram = bases.into_iter().flatten().find(|name| {
        metrics
            .get(*name)
            .is_some_and(|metric| metric.kind == "histogram")
    });
    histogram.unwrap_or(series).to_owned()
}

/// Returns the names of the labels in `a="1",b=~"2"`.
fn labels_of(matchers: &str) -> impl Iterator<Item = String> + '_ {
    let names = matchers
        .split(',')
        .filter_map(|pair| pair.split(['=', '!']).next());
    names
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty() && name.chars().all(is_part_of_a_name))
}

fn is_part_of_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Returns every series of the platform that a text with queries names, with the labels that select it there.
pub fn asked_for(text: &str) -> Vec<(String, BTreeSet<String>)> {
    let text = text.replace("\\\"", "\"");
    let mut found = Vec::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("tern_") {
        let starts_here = !rest[..at].ends_with(is_part_of_a_name);
        let name: String = rest[at..].chars().take_while(|c| is_part_of_a_name(*c)).collect();
        rest = &rest[at + name.len()..];
        let matchers = rest
            .strip_prefix('{')
            .and_then(|rest| rest.split('}').next())
            .unwrap_or_default();
        if starts_here {
            found.push((name, labels_of(matchers).collect()));
        }
    }
    found
}

#[test]
fn pages_and_queries_are_read_as_they_are_meant() {
    let mut metrics = Metrics::new();
    let page = "# HELP tern_a_seconds how long\n# TYPE tern_a_seconds histogram\n\
                tern_a_seconds_bucket{kind=\"x\",le=\"1\"} 3\ntern_a_seconds_sum{kind=\"x\"} 0.5\n";
    add(&mut metrics, "chat", page);
    let metric = &metrics["tern_a_seconds"];
    assert_eq!(
        (metric.kind.as_str(), metric.help.as_str()),
        ("histogram", "how long")
    );
    assert_eq!(metric.labels, ["kind".to_owned()].into());
    assert_eq!(metrics.len(), 1);

    let query = r#"rate(tern_a_seconds_bucket{kind=~\"x|y\",pod!=\"\"}[5m]) > on (x) xtern_b / tern_c"#;
    let labels = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(
        asked_for(query),
        [
            ("tern_a_seconds_bucket".to_owned(), labels(&["kind", "pod"])),
            ("tern_c".to_owned(), labels(&[]))
        ]
    );
}
