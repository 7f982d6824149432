//! What health says while partitions apply what the log held at the start: questions about them are refused until then.

use service::Health;
use tokio::{sync::watch, task::JoinSet};

/// Under this name the health tells of partitions that recover.
const RECOVERING: &str = "recovering";

/// Says how many partitions recover, at once and then while any does. One that stops before that recovers no more: it stays
/// among those that are counted, and the reason stays.
pub(crate) fn follow(recovered: Vec<watch::Receiver<bool>>, health: Health) -> impl Future<Output = ()> + Send {
    tell(&recovered, &health);
    async move {
        // All at once: one that takes long, or stops, keeps nobody else from being counted off.
        let waiting = recovered.iter().cloned().map(|mut partition| async move {
            // That it stopped is told where it did.
            let _ = partition.wait_for(|recovered| *recovered).await;
        });
        let mut waiting: JoinSet<()> = waiting.collect();
        while waiting.join_next().await.is_some() {
            tell(&recovered, &health);
        }
    }
}

fn tell(recovered: &[watch::Receiver<bool>], health: &Health) {
    let recovering = recovered.iter().filter(|recovered| !*recovered.borrow()).count();
    if recovering == 0 {
        return health.recover(RECOVERING);
    }
    let all = recovered.len();
    let reason = format!(
        "{recovering} of {all} partitions still apply what the log held at the start; questions about them are refused"
    );
    health.degrade(RECOVERING, reason);
}

#[cfg(test)]
mod tests {
    use service::HealthStatus;

    use super::*;

    /// Goal: health is degraded from the start until the last partition has recovered, whichever comes first, and each is
    /// counted off as it does; where one never does, it stays so, and tells of that one alone.
    #[tokio::test]
    async fn health_follows_the_partitions() {
        for lost in [false, true] {
            let (senders, receivers): (Vec<_>, Vec<_>) = (0..3).map(|_| watch::channel(false)).unzip();
            let health = Health::starting("hot-tier", "1");
            let following = follow(receivers, health.clone());
            health.set_serving();
            let degraded = |recovering: &str| match health.status() {
                HealthStatus::Degraded { reasons } => reasons.len() == 1 && reasons[0].starts_with(recovering),
                _ => false,
            };
            assert!(degraded("3 of 3 partitions"), "{:?}", health.status());
            let following = tokio::spawn(following);
            let mut senders = senders.into_iter();
            let first = senders.next().unwrap();
            if lost {
                drop(first);
            } else {
                first.send_replace(true);
            }
            for (sender, left) in senders.zip([2, 1]) {
                sender.send_replace(true);
                let left = if lost { left } else { left - 1 };
                while left > 0 && !degraded(&format!("{left} of 3 partitions")) {
                    assert!(!following.is_finished(), "{:?}", health.status());
                    tokio::task::yield_now().await;
                }
            }
            following.await.unwrap();
            if lost {
                assert!(degraded("1 of 3 partitions"), "{:?}", health.status());
            } else {
                assert_eq!(health.status(), HealthStatus::Healthy);
            }
        }
    }
}
