use std::collections::HashMap;

use super::*;

fn node(role: &str, name: &str, answered: bool) -> v1::ClusterNode {
    v1::ClusterNode {
        role: role.into(),
        name: name.into(),
        admin_address: "h:1".into(),
        answer: answered.then_some(v1::NodeAnswer {
            map_version: 7,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn moment(at_ms: i64, nodes: &[v1::ClusterNode], pages: &[(&str, &str)]) -> Moment {
    let pages = pages
        .iter()
        .map(|(name, page)| ((*name).to_owned(), Page::read(page)));
    Moment {
        at_ms,
        map: Ok(v1::GetClusterMapResponse {
            map_version: 7,
            nodes: nodes.to_vec(),
            ..Default::default()
        }),
        queues: Ok(v1::GetQueuesResponse::default()),
        pages: pages.collect::<HashMap<_, _>>(),
    }
}

fn row<'a>(view: &'a View, name: &str) -> Vec<&'a str> {
    let row = view.rows.iter().find(|row| row[1].text == name).unwrap();
    row.iter().map(|cell| &*cell.text).collect()
}

fn fact<'a>(view: &'a View, name: &str) -> &'a Cell {
    &view.facts.iter().find(|(known, _)| *known == name).unwrap().1
}

fn alarms(view: &View) -> Vec<&str> {
    view.alarms.iter().map(|alarm| &*alarm.text).collect()
}

const CHAT: [&str; 2] = [
    "tern_chat_job_items_total{kind=\"commit\",shard=\"0\"} 100\ntern_chat_pushes_total 1000\n\
     tern_chat_job_seconds_bucket{kind=\"commit\",le=\"0.001\"} 0\n\
     tern_chat_job_seconds_bucket{kind=\"commit\",le=\"+Inf\"} 0\ntern_node_etcd_up 1\n",
    "tern_chat_job_items_total{kind=\"commit\",shard=\"0\"} 300\ntern_chat_pushes_total 5000\n\
     tern_chat_job_seconds_bucket{kind=\"commit\",le=\"0.001\"} 60\n\
     tern_chat_job_seconds_bucket{kind=\"commit\",le=\"+Inf\"} 61\ntern_node_etcd_up 1\n\
     tern_node_shed_delay_seconds{signal=\"commit\"} 0.0015\ntern_node_shed_level{of=\"effect\"} 0\n",
];

#[test]
fn rates_and_quantiles_are_of_what_lies_in_between() {
    let nodes = [
        node("chat", "chat-0", true),
        node("gateway", "gateway-0", true),
        node("presence", "presence-0", true),
        node("accounts", "accounts-0", true),
    ];
    let gateway = "tern_gateway_sessions 12\ntern_gateway_events_out_total 8\ntern_node_etcd_up 1\n";
    let before = moment(0, &nodes, &[("chat-0", CHAT[0]), ("gateway-0", gateway)]);
    let pages = [
        ("chat-0", CHAT[1]),
        ("gateway-0", gateway),
        ("presence-0", ""),
        ("accounts-0", ""),
    ];
    let now = moment(2000, &nodes, &pages);
    let view = View::of(&before, &now);
    assert_eq!(
        row(&view, "chat-0"),
        [
            "chat", "chat-0", "up", "7", "", "100", "2000", "1.0 ms", "long", "1.5 ms", "0"
        ]
    );
    assert_eq!(row(&view, "gateway-0")[4..7], ["12", "", "0.0"]);
    assert_eq!(fact(&view, "messages/s").text, "100");
    assert_eq!(fact(&view, "deliveries/s").text, "2000");
    assert_eq!(fact(&view, "sessions").text, "12");
    assert_eq!(fact(&view, "etcd").text, "reached by 2 of 2");
    assert_eq!(alarms(&view), [""; 0]);
    assert!(view.text().contains("chat-0") && view.text().contains("sweep hits"));
}

#[test]
fn a_counter_that_fell_began_anew() {
    let nodes = [node("chat", "chat-0", true)];
    let before = moment(0, &nodes, &[("chat-0", CHAT[1])]);
    let now = moment(1000, &nodes, &[("chat-0", CHAT[0])]);
    assert_eq!(row(&View::of(&before, &now), "chat-0")[5], "100");
}

#[test]
fn what_is_wrong_is_said_the_worst_first() {
    let behind = v1::ClusterNode {
        answer: Some(v1::NodeAnswer {
            map_version: 6,
            ..Default::default()
        }),
        ..node("presence", "presence-0", true)
    };
    let nodes = [
        node("gateway", "gateway-0", true),
        node("chat", "chat-0", false),
        behind,
        node("accounts", "accounts-0", true),
    ];
    let quiet = "tern_node_etcd_up 1\ntern_gateway_sweep_found_total 1\n";
    let found = "tern_node_etcd_up 0\ntern_gateway_sweep_found_total 3\n\
                 tern_node_shed_level{of=\"effect\"} 2\n\
                 tern_node_postgres_setting_safe{setting=\"fsync\",value=\"off\"} 0\n";
    let before = moment(0, &nodes, &[("gateway-0", quiet)]);
    let mut now = moment(
        1000,
        &nodes,
        &[("gateway-0", found), ("presence-0", ""), ("chat-0", "")],
    );
    now.queues = Ok(v1::GetQueuesResponse {
        unsettled: vec![v1::UnsettledRange {
            commits: 5,
            oldest_age_ms: 60_000,
            ..Default::default()
        }],
        nodes_missed: vec!["chat-0".into()],
        partial: true,
        ..Default::default()
    });
    let view = View::of(&before, &now);
    let bad = view.alarms.iter().filter(|alarm| alarm.mood == Mood::Bad).count();
    assert_eq!(
        alarms(&view)[..bad],
        [
            "gateway-0 does not reach etcd: its map is frozen",
            "chat-0 does not answer",
            "the sweep found 2 rows that were lost on the way",
            "a commit has not been settled for 1 min",
            "chat-0 does not say how its shards are",
            "a part of the store does not answer",
        ]
    );
    assert_eq!(
        alarms(&view)[bad..],
        [
            "gateway-0: settings of Postgres are not safe",
            "gateway-0 gives way under load: level 2",
            "presence-0 follows another version of the map",
            "the metrics of accounts-0 cannot be had at \"h:1\"",
        ]
    );
    assert_eq!(fact(&view, "sweep hits"), &cell("3", Mood::Bad));
    assert_eq!(fact(&view, "etcd").mood, Mood::Bad);
}

#[test]
fn a_gateway_that_was_not_read_or_started_again_is_no_news_of_the_sweep() {
    let nodes = ["gateway-0", "gateway-1", "gateway-2"].map(|name| node("gateway", name, true));
    let page = |rows: u32| format!("tern_node_etcd_up 1\ntern_gateway_sweep_found_total {rows}\n");
    let (five, two) = (page(5), page(2));
    // The first could not be read before, the second was started again, and the third is as it was.
    let before = moment(0, &nodes, &[("gateway-1", &five), ("gateway-2", &two)]);
    let now = moment(
        1000,
        &nodes,
        &[("gateway-0", &five), ("gateway-1", &two), ("gateway-2", &two)],
    );
    let view = View::of(&before, &now);
    assert_eq!(fact(&view, "sweep hits").text, "9");
    assert!(alarms(&view).contains(&"the sweep found 2 rows that were lost on the way"));
    let again = View::of(&now, &now);
    assert!(!alarms(&again).iter().any(|alarm| alarm.contains("sweep")));
}

#[test]
fn who_is_gone_is_missed_and_a_role_without_nodes_is_badly_wrong() {
    let nodes = [
        node("gateway", "gateway-0", true),
        node("chat", "chat-0", true),
        node("chat", "chat-1", true),
        node("accounts", "accounts-0", true),
        node("presence", "presence-0", true),
    ];
    let pages = ["gateway-0", "chat-0", "accounts-0"].map(|name| (name, ""));
    let (before, now) = (
        moment(0, &nodes, &[]),
        moment(1000, &[&nodes[..2], &nodes[3..4]].concat(), &pages),
    );
    assert_eq!(
        alarms(&View::of(&before, &now)),
        [
            "there is no presence node",
            "chat-1 has left the map",
            "presence-0 has left the map"
        ]
    );
}

#[test]
fn a_platform_that_does_not_answer_is_shown_as_that() {
    let silent = Moment {
        map: Err("no route".into()),
        queues: Err("no route".into()),
        ..moment(1000, &[], &[])
    };
    let view = View::of(&silent, &silent);
    assert_eq!(
        alarms(&view),
        [
            "the Admin service does not answer: no route",
            "nobody can say what waits: no route"
        ]
    );
    assert_eq!(fact(&view, "postgres").mood, Mood::Bad);
}

/// `tern admin nodes` shows the same states.
#[test]
fn a_node_that_was_started_again_is_shown_and_said() {
    let again = v1::ClusterNode {
        incarnation: 1,
        ..node("chat", "chat-0", true)
    };
    let moment = moment(0, &[again], &[]);
    let view = View::of(&moment, &moment);
    assert_eq!(row(&view, "chat-0")[2], "RESTARTED");
    assert!(alarms(&view).contains(&"chat-0 was started again, and the map has the process before"));
}

/// A queue is late when the node begins to shed, and not only later.
#[test]
fn a_queue_is_late_where_shedding_begins() {
    let nodes = [node("chat", "chat-0", true)];
    let mood = |seconds: &str| {
        let page = format!("tern_node_shed_delay_seconds{{signal=\"commit\"}} {seconds}\n");
        let moment = moment(0, &nodes, &[("chat-0", &page)]);
        View::of(&moment, &moment).rows[0][9].mood
    };
    assert_eq!((mood("0.039"), mood("0.04")), (Mood::Plain, Mood::Warn));
}
