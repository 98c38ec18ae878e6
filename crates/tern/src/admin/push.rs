//! `tern admin push`: sends a push to one device, and prints what happened at each step.

use clap::{Args, Subcommand};
use serde::Serialize;
use tern_proto::v1;
use tern_types::DeviceId;

use super::output::{show, span, table};
use super::remote::Remote;

/// Push notifications
#[derive(Subcommand, Clone, Debug)]
pub enum PushCommand {
    /// Send a device a push that says nothing but that something waits, and print each step with the provider's answer
    Test(TestArgs),
}

#[derive(Args, Clone, Debug)]
pub struct TestArgs {
    /// The device's id, as `tern admin devices` prints it
    #[arg(long)]
    device: DeviceId,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Serialize)]
struct Test {
    sent: bool,
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Step {
    name: String,
    ok: bool,
    detail: String,
    took_ms: u32,
}

/// Runs the command to its end.
///
/// # Errors
///
/// Returns an error if the platform does not answer, if there is no such device, or if the provider did not take the
/// push. The steps are printed all the same then.
pub async fn run(command: PushCommand) -> anyhow::Result<()> {
    let PushCommand::Test(args) = command;
    let request = v1::TestPushRequest {
        device_id: args.device.to_string(),
    };
    let test = test(args.remote.api()?.test_push(request).await?);
    show(args.remote.json, &test, text)?;
    anyhow::ensure!(test.sent, "the push was not sent");
    Ok(())
}

fn text(test: &Test) -> String {
    let row = |step: &Step| {
        [
            step.name.clone(),
            if step.ok { "ok" } else { "failed" }.to_owned(),
            span(step.took_ms.into()),
            step.detail.clone(),
        ]
    };
    table(["STEP", "RESULT", "TOOK", "DETAIL"], test.steps.iter().map(row))
}

fn test(answer: v1::TestPushResponse) -> Test {
    let step = |step: v1::PushStep| Step {
        name: step.name,
        ok: step.ok,
        detail: step.detail,
        took_ms: step.took_ms,
    };
    Test {
        sent: answer.sent,
        steps: answer.steps.into_iter().map(step).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_a_line_with_what_became_of_it() {
        let step = |name: &str, ok, detail: &str, took_ms| v1::PushStep {
            name: name.to_owned(),
            ok,
            detail: detail.to_owned(),
            took_ms,
        };
        let answer = v1::TestPushResponse {
            steps: vec![
                step("token", true, "APNs, sandbox", 2),
                step("provider", false, "403 InvalidProviderToken", 1_200),
            ],
            sent: false,
        };
        let expected = "STEP      RESULT  TOOK   DETAIL\n\
                        token     ok      2 ms   APNs, sandbox\n\
                        provider  failed  1.2 s  403 InvalidProviderToken\n";
        assert_eq!(text(&test(answer)), expected);
    }
}
