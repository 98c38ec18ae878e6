//! These tests hold what the hub counts.

use std::sync::atomic::Ordering;

use ::metrics::atomics::AtomicU64;
use ::metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tern_cluster::Node;
use tern_presence_core::activity::Sign;
use tern_presence_core::registry::Announcement;
use tern_types::{DeviceId, Timestamp};

use super::*;

/// The values of counters and gauges by name, whatever their labels.
#[derive(Default)]
struct Counted(Mutex<HashMap<String, Arc<AtomicU64>>>);

impl Counted {
    fn of(&self, key: &Key) -> Arc<AtomicU64> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.entry(key.name().to_owned()).or_default().clone()
    }

    fn counter(&self, name: &'static str) -> u64 {
        self.of(&Key::from_static_name(name)).load(Ordering::Acquire)
    }

    fn gauge(&self, name: &'static str) -> f64 {
        f64::from_bits(self.counter(name))
    }
}

impl Recorder for Counted {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.of(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.of(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn map(version: i64, presence: &str) -> ClusterMap {
    let node = |name: &str| Node {
        name: name.into(),
        incarnation: 1,
        ..Node::default()
    };
    ClusterMap::new(
        version,
        [(Role::Presence, node(presence)), (Role::Gateway, node("g1"))],
    )
}

#[test]
fn only_what_it_is_named_after_moves_a_metric() {
    let counted = Counted::default();
    ::metrics::with_local_recorder(&counted, || {
        let threshold = Duration::from_secs(30);
        let hub = Hub::new("p1".into(), 1, Duration::ZERO, threshold, Duration::ZERO);
        let hub = Arc::new(hub);
        hub.follow(&map(1, "p1"));
        let link = hub.link(Gateway {
            name: "g1".into(),
            incarnation: 1,
        });
        let (user, session, sign) = (UserId::random(), SessionId(7), Sign::default());
        let announcement = Announcement {
            user,
            device: DeviceId::random(),
            session,
            since: Timestamp(1),
            number: None,
            sign,
        };
        let (gateway, link) = (link.gateway.clone(), link.id);
        hub.announce([Event::Announced {
            gateway: gateway.clone(),
            link,
            announcement,
        }]);
        hub.announce([Event::Signed {
            gateway: gateway.clone(),
            link,
            user,
            session,
            sign,
        }]);
        assert_eq!(counted.counter("tern_presence_announcements_total"), 1);

        assert!(hub.sessions(user, |_| ()).is_ok());
        assert_eq!(
            counted.counter("tern_presence_lookups_total"),
            0,
            "by an operator"
        );

        let watch = hub.open_watch(&gateway);
        watch.watch(&[user]);
        assert_eq!(counted.gauge("tern_presence_watches"), 1.0);
        hub.follow(&map(2, "p2"));
        assert_eq!(counted.gauge("tern_presence_watches"), 0.0);
    });
}
