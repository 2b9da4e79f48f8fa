//! A client of another language that knows the interface by reflection alone.

use std::process::{Command, Stdio};

use base64::Engine;
use serde_json::{Value, json};

use crate::support::{Member, Plan, merge, python_program};

/// The answers to these calls, each with its path and its request.
pub(crate) async fn calls(member: &Member, with: Value, calls: Value) -> Value {
    let mut task = json!({ "address": format!("127.0.0.1:{}", member.api), "calls": calls });
    merge(&mut task, &with);
    let mut command = Command::new(python_program("python3"));
    command.args(["-c", include_str!("grpc/reflect.py"), &task.to_string()]).stdin(Stdio::null());
    let done = tokio::task::spawn_blocking(move || command.output()).await;
    let output = done.expect("it is waited for").expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The client lists the members, is refused a change without credentials, and switches over with them, phase by phase.
#[tokio::test]
async fn a_client_by_reflection_lists_members_and_switches_over() {
    let login = json!({ "restapi": { "authentication": { "username": "admin", "password": "s3cret" } } });
    let cluster = Plan::new(3).all(login).start().await;
    let (m1, m2) = (&cluster.members[0], &cluster.members[1]);
    let switchover = json!(["matriarch.v1.Admin/Switchover", { "leader": "m1", "candidate": "m2" }]);
    let found = calls(m1, json!({}), json!([["matriarch.v1.Admin/ListMembers", {}], switchover])).await;
    let services = json!([
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "matriarch.v1.Admin",
        "matriarch.v1.Peer",
    ]);
    assert_eq!(found["services"], services);
    let listed = &found["answers"][0]["messages"][0]["cluster"];
    let roles: Vec<_> = listed["members"].as_array().into_iter().flatten().collect();
    let roles: Vec<_> = roles.iter().map(|member| (&member["name"], &member["role"])).collect();
    let [leader, replica] = [json!("MEMBER_ROLE_LEADER"), json!("MEMBER_ROLE_REPLICA")];
    let names = [json!("m1"), json!("m2"), json!("m3")];
    assert_eq!(roles, [(&names[0], &leader), (&names[1], &replica), (&names[2], &replica)], "{listed}");
    assert_eq!(listed["leader"], "m1");
    assert_eq!(found["answers"][1]["code"], "UNAUTHENTICATED", "{found}");

    let token = base64::engine::general_purpose::STANDARD.encode("admin:s3cret");
    let login = json!({ "authorization": format!("Basic {token}") });
    let done = &calls(m1, login, json!([switchover])).await["answers"][0];
    assert_eq!(done["code"], "OK", "{done}\n{}", cluster.story());
    let phases = done["messages"].as_array().into_iter().flatten();
    let phases: Vec<&str> = phases.filter_map(|message| message["progress"]["phase"].as_str()).collect();
    let short: Vec<&str> =
        phases.iter().filter_map(|phase| phase.strip_prefix("LEADERSHIP_PHASE_")).collect();
    assert!(short.starts_with(&["CHECKING", "REQUESTED"]), "{done}");
    assert!(short.contains(&"STOPPING") && short.ends_with(&["LEADER_CHANGED", "PROMOTED"]), "{done}");

    let asked = json!([["matriarch.v1.Admin/GetStatus", {}], ["grpc.health.v1.Health/Check", { "service": "primary" }]]);
    let now = calls(m2, json!({}), asked).await;
    let status = &now["answers"][0]["messages"][0]["status"];
    assert_eq!(
        (&status["role"], &status["primary"]),
        (&json!("POSTGRES_ROLE_PRIMARY"), &json!(true)),
        "{status}"
    );
    assert_eq!(now["answers"][1]["messages"][0]["status"], "SERVING");
    assert_eq!(cluster.wait_until_well().await.leader(), Some("m2"));
}
