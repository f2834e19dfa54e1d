use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use tokio::time::{sleep, timeout};

use super::*;

const LONG: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_secs(3600);

/// Counts what its thread did with it.
#[derive(Default)]
struct Scratch {
    used: usize,
}

fn pool(threads: usize, total: usize, per_group: usize) -> WorkPool<Scratch> {
    WorkPool::start(setup(threads, total, per_group)).unwrap()
}

fn setup(threads: usize, total: usize, per_group: usize) -> Setup<Scratch> {
    Setup {
        threads,
        queue: QueueLimits { total, per_group },
        starved_after: None,
        idle_release: NEVER,
        scratch: Scratch::default,
        release: |_| {},
    }
}

fn unknown(group: u64) -> Caller {
    Caller { group, lane: Lane::Unknown }
}

fn known(group: u64) -> Caller {
    Caller { group, lane: Lane::Known }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, NotDone>> + Send + 'a>>;

/// Puts work into the queue and leaves it there.
fn queued<T: Send + 'static>(
    pool: &WorkPool<Scratch>,
    caller: Caller,
    work: impl FnOnce(&mut Scratch) -> T + Send + 'static,
) -> Answer<'_, T> {
    let mut answer: Answer<'_, T> = Box::pin(pool.run(caller, work));
    let mut context = Context::from_waker(Waker::noop());
    assert!(answer.as_mut().poll(&mut context).is_pending(), "was not queued");
    answer
}

/// The advice with which a caller is refused before it ever waits.
fn refused(pool: &WorkPool<Scratch>, caller: Caller) -> Option<Duration> {
    let mut answer: Answer<'_, ()> = Box::pin(pool.run(caller, |_| ()));
    match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Err(NotDone::Busy { retry_after })) => Some(retry_after),
        _ => None,
    }
}

/// Keeps the pool's only thread busy until the sender is used or dropped.
async fn occupied(pool: &WorkPool<Scratch>) -> (mpsc::Sender<()>, Answer<'_, ()>) {
    let (release, released) = mpsc::channel();
    let (begin, begun) = oneshot::channel();
    let answer = queued(pool, known(u64::MAX), move |_| {
        begin.send(()).unwrap();
        let _ = released.recv();
    });
    timeout(LONG, begun).await.unwrap().unwrap();
    (release, answer)
}

/// Queues work for each caller while the thread is busy and answers the order it was done in.
async fn order_of(callers: &[Caller]) -> Vec<usize> {
    let pool = pool(1, 1000, 1000);
    let (release, gate) = occupied(&pool).await;
    let done = Arc::new(Mutex::new(Vec::new()));
    let mut answers = Vec::new();
    for (number, caller) in callers.iter().enumerate() {
        let done = Arc::clone(&done);
        answers.push(queued(&pool, *caller, move |_| done.lock().unwrap().push(number)));
    }
    drop(release);
    gate.await.unwrap();
    for answer in answers {
        timeout(LONG, answer).await.unwrap().unwrap();
    }
    Arc::into_inner(done).unwrap().into_inner().unwrap()
}

#[tokio::test]
async fn work_is_done_and_its_result_answered() {
    let pool = pool(2, 10, 10);
    assert_eq!(pool.run(unknown(1), |_| 6 * 7).await, Ok(42));
}

#[tokio::test]
async fn groups_take_turns() {
    let mut callers = vec![unknown(1); 10];
    callers.push(unknown(2));
    callers.push(unknown(3));
    let order = order_of(&callers).await;
    assert!(order[..4].contains(&10) && order[..4].contains(&11), "{order:?}");
    let of_first: Vec<_> = order.iter().filter(|number| **number < 10).collect();
    assert!(of_first.is_sorted(), "one group's work was reordered");
}

#[tokio::test]
async fn known_callers_go_first_three_to_one() {
    let mut callers = vec![unknown(1); 5];
    callers.extend([known(2); 9]);
    let order = order_of(&callers).await;
    let lanes: String = order.iter().map(|number| if *number < 5 { 'u' } else { 'k' }).collect();
    // The gate was the first of the known lane's three.
    assert_eq!(lanes, "kkukkkukkkukuu");
}

#[tokio::test]
async fn a_full_group_is_refused_at_once_and_others_are_not() {
    let pool = pool(1, 100, 3);
    let (_release, _gate) = occupied(&pool).await;
    let _waiting: Vec<_> = (0..3).map(|_| queued(&pool, unknown(1), |_| ())).collect();
    assert!(refused(&pool, unknown(1)).is_some());
    assert!(refused(&pool, known(1)).is_some(), "a group's share is over both lanes");
    drop(queued(&pool, unknown(2), |_| ()));
}

#[tokio::test]
async fn a_flood_of_strangers_leaves_room_for_known_devices() {
    let pool = pool(1, 8, 8);
    let (_release, _gate) = occupied(&pool).await;
    let mut waiting: Vec<_> = (0..6).map(|group| queued(&pool, unknown(group), |_| ())).collect();
    assert!(refused(&pool, unknown(99)).is_some());
    waiting.extend((0..2).map(|group| queued(&pool, known(100 + group), |_| ())));
    assert!(refused(&pool, known(99)).is_some());
}

#[tokio::test]
async fn the_advice_when_to_come_back_grows_with_the_queue() {
    let advice = async |waiting: u64| {
        let pool = pool(1, usize::try_from(waiting).unwrap(), 1);
        let (_release, _gate) = occupied(&pool).await;
        let _waiting: Vec<_> =
            (0..waiting).map(|group| queued(&pool, known(group), |_| ())).collect();
        refused(&pool, known(waiting)).unwrap()
    };
    assert_eq!(advice(1).await, Duration::from_secs(1));
    assert_eq!(advice(49).await, Duration::from_secs(5));
    assert_eq!(advice(5000).await, Duration::from_secs(60));
}

#[tokio::test]
async fn who_gives_up_leaves_the_queue_and_is_not_served() {
    let pool = pool(1, 4, 2);
    let (release, gate) = occupied(&pool).await;
    let ran = Arc::new(AtomicUsize::new(0));
    for _ in 0..100 {
        let ran = Arc::clone(&ran);
        drop(queued(&pool, unknown(1), move |_| ran.fetch_add(1, Ordering::SeqCst)));
    }
    let last = queued(&pool, unknown(1), |_| ());
    drop(release);
    gate.await.unwrap();
    timeout(LONG, last).await.unwrap().unwrap();
    assert_eq!(ran.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn giving_up_does_not_disturb_the_turns_of_others() {
    let pool = pool(1, 100, 100);
    let (release, gate) = occupied(&pool).await;
    let leaves = queued(&pool, unknown(1), |_| ());
    let stays = queued(&pool, unknown(2), |_| 2);
    drop(leaves);
    let returns = queued(&pool, unknown(1), |_| 1);
    drop(release);
    gate.await.unwrap();
    assert_eq!(timeout(LONG, stays).await.unwrap(), Ok(2));
    assert_eq!(timeout(LONG, returns).await.unwrap(), Ok(1));
}

#[tokio::test]
async fn a_panic_is_answered_and_the_thread_goes_on_with_fresh_scratch() {
    let pool = pool(1, 10, 10);
    pool.run(unknown(1), |scratch| scratch.used += 1).await.unwrap();
    assert_eq!(pool.run(unknown(1), |scratch| scratch.used).await, Ok(1));
    let failed: Result<(), _> = pool.run(unknown(1), |_| panic!("on purpose")).await;
    assert_eq!(failed, Err(NotDone::Panicked));
    assert_eq!(pool.run(unknown(1), |scratch| scratch.used).await, Ok(0));
}

#[tokio::test]
async fn scratch_is_released_once_after_idling_and_not_before() {
    static RELEASED: AtomicUsize = AtomicUsize::new(0);
    let pool = WorkPool::start(Setup {
        threads: 1,
        queue: QueueLimits { total: 10, per_group: 10 },
        starved_after: None,
        idle_release: Duration::from_millis(200),
        scratch: || vec![0u8; 1024],
        release: |memory: &mut Vec<u8>| {
            *memory = Vec::new();
            RELEASED.fetch_add(1, Ordering::SeqCst);
        },
    })
    .unwrap();
    for _ in 0..3 {
        assert_eq!(pool.run(unknown(1), |memory| memory.len()).await, Ok(1024));
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(RELEASED.load(Ordering::SeqCst), 0);
    sleep(Duration::from_millis(700)).await;
    assert_eq!(RELEASED.load(Ordering::SeqCst), 1);
    assert_eq!(pool.run(unknown(1), |memory| memory.len()).await, Ok(0));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_threads_have_low_priority_and_others_keep_theirs() {
    /// The nice value of a thread, the seventeenth field after its name (proc(5)).
    fn niceness(task: &str) -> i32 {
        let stat = std::fs::read_to_string(format!("/proc/{task}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(16).unwrap().parse().unwrap()
    }
    let own = niceness("thread-self");
    let pool = pool(1, 10, 10);
    let theirs = pool.run(unknown(1), |_| niceness("thread-self")).await.unwrap();
    assert_eq!(theirs, 19, "the lowest there is");
    let policy = |_: &mut Scratch| {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(38).unwrap().to_owned()
    };
    // The thirty-ninth field after the name; 5 is SCHED_IDLE (sched(7)).
    assert_eq!(pool.run(unknown(1), policy).await.unwrap(), "5");
    assert_eq!(niceness("thread-self"), own);
}

#[tokio::test]
async fn dropping_the_pool_answers_everybody() {
    let pool = Arc::new(pool(1, 10, 10));
    let (release, released) = mpsc::channel::<()>();
    let (begin, begun) = oneshot::channel();
    let (ended, end) = oneshot::channel();
    let shared = Arc::clone(&pool.shared);
    // Straight into the queue: a caller's future would keep the pool alive.
    let push = |job: Job<Scratch>| shared.lock().push(unknown(1), job).map(drop).unwrap();
    push(Box::new(move |_| {
        begin.send(()).unwrap();
        let _ = released.recv();
        ended.send(()).unwrap();
        Ok(())
    }));
    shared.changed.notify_one();
    timeout(LONG, begun).await.unwrap().unwrap();
    let (answer, answered) = oneshot::channel::<()>();
    push(Box::new(move |_| {
        answer.send(()).unwrap();
        Ok(())
    }));
    drop(pool);
    assert!(timeout(LONG, answered).await.unwrap().is_err(), "waiting work was not refused");
    drop(release);
    assert!(timeout(LONG, end).await.unwrap().is_ok(), "running work was not finished");
    let refused = shared.lock().push(unknown(1), Box::new(|_| Ok(())));
    assert!(matches!(refused, Err(NotDone::Stopped)));
    let ended = async {
        while Arc::strong_count(&shared) > 1 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, ended).await.expect("the thread lives on");
}

#[tokio::test]
async fn many_callers_on_many_threads_all_get_their_own_answer() {
    let pool = Arc::new(pool(4, 10_000, 10_000));
    let callers: Vec<_> = (0..500u64)
        .map(|number| {
            let pool = Arc::clone(&pool);
            tokio::spawn(
                async move { (number, pool.run(unknown(number % 7), move |_| number).await) },
            )
        })
        .collect();
    for caller in callers {
        let (number, answer) = timeout(LONG, caller).await.unwrap().unwrap();
        assert_eq!(answer, Ok(number));
    }
}

#[tokio::test]
async fn work_goes_on_when_the_threads_get_nowhere() {
    let starved_after = Some(Duration::from_millis(50));
    let pool = WorkPool::start(Setup { starved_after, ..setup(1, 9, 9) }).unwrap();
    let (_release, _first) = occupied(&pool).await;
    for _ in 0..3 {
        assert_eq!(timeout(LONG, pool.run(unknown(1), |_| 7)).await, Ok(Ok(7)));
    }
}

#[tokio::test]
async fn a_known_device_is_helped_sooner() {
    let starved_after = Some(Duration::from_secs(8));
    let pool = WorkPool::start(Setup { starved_after, ..setup(1, 9, 9) }).unwrap();
    let (_release, _first) = occupied(&pool).await;
    let soon = Duration::from_secs(5);
    assert_eq!(timeout(soon, pool.run(known(1), |_| 7)).await, Ok(Ok(7)));
}

#[tokio::test]
async fn whoever_has_no_place_can_learn_so_before() {
    let pool = pool(1, 9, 1);
    let (_release, _first) = occupied(&pool).await;
    assert_eq!(pool.has_room(unknown(1)), Ok(()));
    let _waiting = queued(&pool, unknown(1), |_| ());
    assert!(matches!(pool.has_room(unknown(1)), Err(NotDone::Busy { .. })));
    assert_eq!(pool.has_room(unknown(2)), Ok(()));
}
