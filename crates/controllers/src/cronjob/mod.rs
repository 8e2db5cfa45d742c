//! CronJob: Jobs by a schedule.

mod decide;
pub mod schedule;

use std::sync::Arc;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use pintle_api::metrics::{Family, Kind, Stability};
use pintle_client::clock::since;
use pintle_client::informers::{BY_CONTROLLER, View};
use pintle_client::meta::{MetaOnly, key};
use pintle_client::recorder::reference_of;
use pintle_client::typed::{decode, resource_of};
use pintle_client::{Error, Informer, Key};

use crate::context::{Context, Outcome};
use crate::support::ownership::concerned;
use crate::support::status;

use decide::{Plan, Snapshot};

const WORKERS: usize = 5;

static SKEW: Family = Family::new(
    "cronjob_controller_job_creation_skew_duration_seconds",
    Kind::Histogram(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]),
    Stability::Stable,
    &[],
    "Time between when a cronjob is scheduled to be run, and when the corresponding job is created",
);

struct Controller {
    cx: Context,
    crons: Informer,
    jobs: Informer,
    job_metas: View<MetaOnly>,
}

/// The controller.
pub async fn run(cx: Context) {
    let queue = cx.queue("cronjob");
    let me = Arc::new(Controller {
        crons: cx.informers.of::<CronJob>(),
        jobs: cx.informers.of::<Job>(),
        job_metas: cx.informers.view::<Job, MetaOnly>(),
        cx: cx.clone(),
    });
    let q = queue.clone();
    me.crons.on_change(move |change| q.add(change.key().clone()));
    let q = queue.clone();
    me.job_metas.on_change(move |change| {
        let concerned = concerned(change, resource_of::<CronJob>());
        for owner in [concerned.before, concerned.now].into_iter().flatten() {
            q.add(key(&change.last().metadata.namespace, &owner.name).into());
        }
    });
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
}

impl Controller {
    async fn sync(&self, k: &Key) -> Outcome {
        let Some(object) = self.crons.get(k) else { return Ok(None) };
        let cron: CronJob = decode(&object)?;
        let metas = self.job_metas.by_index(BY_CONTROLLER, object.uid());
        let jobs: Vec<Job> = metas
            .iter()
            .filter_map(|m| self.jobs.get(&m.metadata.key()))
            .map(|o| decode(&o))
            .collect::<Result<_, _>>()?;
        let plan = decide::decide(&Snapshot { cron: &cron, jobs }, self.cx.clock.now());
        self.apply(&object, cron, plan).await
    }

    async fn apply(&self, object: &pintle_api::Object, cron: CronJob, plan: Plan) -> Outcome {
        let about = reference_of(&cron);
        let namespace = object.namespace();
        let api = self.cx.client.of::<Job>();
        for (normal, reason, message) in plan.events {
            if normal {
                self.cx.recorder.normal(&about, reason, message);
            } else {
                self.cx.recorder.warning(&about, reason, message);
            }
        }
        for name in plan.delete {
            let options = DeleteOptions { propagation_policy: Some("Background".into()), ..DeleteOptions::default() };
            match api.delete_with(namespace, &name, &options).await {
                Ok(()) => self.cx.recorder.normal(&about, "SuccessfulDelete", format!("Deleted job {name}")),
                Err(e) if e.is_not_found() => {}
                Err(e) => {
                    self.cx.recorder.warning(&about, "FailedDelete", format!("Deleted job: {e}"));
                    return Err(e);
                }
            }
        }
        let mut new = plan.status;
        if let Some((job, at)) = plan.create {
            let name = job.metadata.name.clone().unwrap_or_default();
            let made = match api.create(&job).await {
                Ok(made) => {
                    self.cx.recorder.normal(&about, "SuccessfulCreate", format!("Created job {name}"));
                    SKEW.with(&[]).observe(since(at.0, self.cx.clock.now()).as_secs_f64());
                    Some(made)
                }
                // Made before, and the status with it was lost.
                Err(e) if e.is_already_exists() => {
                    let there = api.get_opt(namespace, &name).await?;
                    there.filter(|j| j.metadata.owner_references.iter().flatten().any(|o| o.uid == object.uid()))
                }
                Err(e) if e.is_namespace_terminating() => return Ok(None),
                Err(e) => {
                    self.cx.recorder.warning(&about, "FailedCreate", format!("Error creating job: {e}"));
                    return Err(e);
                }
            };
            match made {
                Some(job) if !decide::is_finished(&job) => decide::started(&mut new, &job, at),
                Some(_) => new.last_schedule_time = Some(at),
                None => {
                    return Err(Error::Config(format!("a job {name:?} that is not of this cron job is there already")));
                }
            }
        }
        if cron.status.unwrap_or_default() != new {
            status::put(&self.cx.client, resource_of::<CronJob>(), object, &new).await?;
        }
        Ok(plan.again)
    }
}
