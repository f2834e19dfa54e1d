use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use tokio::time::{sleep, timeout};

use super::*;

const LONG: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_secs(3600);

/// A scratch value that counts its uses.
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
        help: None,
        idle_release: NEVER,
        scratch: Scratch::default,
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
    work: impl Fn(&mut Scratch) -> T + Send + Sync + 'static,
) -> Answer<'_, T> {
    let mut answer: Answer<'_, T> = Box::pin(pool.run(caller, work));
    let mut context = Context::from_waker(Waker::noop());
    assert!(answer.as_mut().poll(&mut context).is_pending(), "the work was not queued");
    answer
}

/// Returns the advised wait if the caller is refused a place in the queue.
fn refused(pool: &WorkPool<Scratch>, caller: Caller) -> Option<Duration> {
    let mut answer: Answer<'_, ()> = Box::pin(pool.run(caller, |_| ()));
    match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Err(NotDone::Busy { retry_after })) => Some(retry_after),
        _ => None,
    }
}

/// Returns the CPU time of a process that always keeps one core busy.
fn busy_process() -> Duration {
    static BEGAN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    BEGAN.get_or_init(worker::now).elapsed()
}

/// Creates a `Help` that can't determine what keeps the cores busy.
fn help(starved_after: Duration) -> Help {
    Help { starved_after, crowded_after: starved_after, core_time: || None }
}

/// Returns whether the current thread is the helper thread.
fn helps() -> bool {
    std::thread::current().name() == Some("hashing-help")
}

/// Keeps the pool's only thread busy until the sender is used or dropped. A thread that repeats this work finishes
/// immediately.
async fn occupied(pool: &WorkPool<Scratch>) -> (mpsc::Sender<()>, Answer<'_, ()>) {
    loop {
        let (release, released) = mpsc::channel();
        let (begin, begun) = oneshot::channel();
        let once = Mutex::new(Some((begin, released)));
        let mut answer = queued(pool, known(u64::MAX), move |_| {
            let first = once.lock().unwrap().take();
            if let Some((begin, released)) = first
                && !helps()
            {
                begin.send(()).unwrap();
                let _ = released.recv();
            }
        });
        // On a busy machine the helping thread may be the first who gets a core.
        match timeout(LONG, begun).await.unwrap() {
            Ok(()) => return (release, answer),
            Err(_) => answer.as_mut().await.unwrap(),
        }
    }
}

/// Queues work for each caller while the thread is busy and returns the order in which it was done.
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
    std::mem::take(&mut *done.lock().unwrap())
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
    assert!(order[..5].contains(&10) && order[..5].contains(&11), "{order:?}");
    let of_first: Vec<_> = order.iter().filter(|number| **number < 10).collect();
    assert!(of_first.is_sorted(), "one group's work was reordered");
}

/// Queues work that adds its group to `done`.
fn note(queue: &mut Queue<Scratch>, group: u64, done: &Arc<Mutex<Vec<u64>>>) {
    let done = Arc::clone(done);
    let job: Job<Scratch> = Arc::new(move |_| {
        done.lock().unwrap().push(group);
        Ok(())
    });
    queue.push(unknown(group), job).map(drop).unwrap();
}

/// Does the next `count` pieces of work.
fn take(queue: &mut Queue<Scratch>, count: usize) {
    for _ in 0..count {
        let taken = queue.take().expect("work waits");
        assert!((taken.job)(&mut Scratch::default()).is_ok());
        queue.finished(&taken, Duration::ZERO, Duration::ZERO);
    }
}

#[test]
fn who_was_not_served_lately_goes_before_a_flood_from_many_ips() {
    let mut queue = Queue::new(QueueLimits { total: 10_000, per_group: 10_000 }, 1);
    let done = Arc::default();
    for group in (1..=100).cycle().take(500) {
        note(&mut queue, group, &done);
    }
    // Until all of them had a turn, every other time beside those who had one before.
    take(&mut queue, 200);
    for group in [1001, 1002, 1001] {
        note(&mut queue, group, &done);
    }
    take(&mut queue, 5);
    // The newcomers alternate with the flood, and a second piece of work is no newcomer's.
    let then = done.lock().unwrap().split_off(200);
    assert!(matches!(then[..], [1001, ..=100, 1002, ..=100, ..=100]), "{then:?}");
}

#[test]
fn a_stream_of_newcomers_does_not_starve_those_who_had_a_turn() {
    let mut queue = Queue::new(QueueLimits { total: 10_000, per_group: 10_000 }, 1);
    let done = Arc::default();
    for _ in 0..10 {
        note(&mut queue, 7, &done);
    }
    for newcomer in 100..120 {
        note(&mut queue, newcomer, &done);
    }
    take(&mut queue, 20);
    let of_old = done.lock().unwrap().iter().filter(|group| **group == 7).count();
    assert_eq!(of_old, 10, "{done:?}");
}

#[test]
fn groups_that_are_gone_are_forgotten() {
    let mut queue = Queue::new(QueueLimits { total: 10_000, per_group: 10_000 }, 1);
    let done = Arc::default();
    for group in 0..1000 {
        note(&mut queue, group, &done);
        take(&mut queue, 1);
        assert!(queue.remembers() <= 2, "{} groups", queue.remembers());
    }
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
    assert!(refused(&pool, known(1)).is_some(), "a group's share covers both lanes");
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
async fn scratch_is_released_after_idling_and_not_before() {
    static RELEASED: AtomicUsize = AtomicUsize::new(0);
    struct Memory {
        used: usize,
    }
    impl Drop for Memory {
        fn drop(&mut self) {
            RELEASED.fetch_add(1, Ordering::SeqCst);
        }
    }
    let pool = WorkPool::start(Setup {
        threads: 1,
        queue: QueueLimits { total: 10, per_group: 10 },
        help: None,
        idle_release: Duration::from_millis(500),
        scratch: || Memory { used: 0 },
    })
    .unwrap();
    let work = |memory: &mut Memory| {
        memory.used += 1;
        memory.used
    };
    for used in 1..=3 {
        assert_eq!(pool.run(unknown(1), work).await, Ok(used));
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(RELEASED.load(Ordering::SeqCst), 0);
    let released = async {
        while RELEASED.load(Ordering::SeqCst) == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, released).await.unwrap();
    assert_eq!(pool.run(unknown(1), work).await, Ok(1));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_threads_have_low_priority_and_others_keep_theirs() {
    /// Returns the nice value of a thread, the seventeenth field after its name (proc(5)).
    fn niceness(task: &str) -> i32 {
        let stat = std::fs::read_to_string(format!("/proc/{task}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(16).unwrap().parse().unwrap()
    }
    let own = niceness("thread-self");
    let pool = pool(1, 10, 10);
    let theirs = pool.run(unknown(1), |_| niceness("thread-self")).await.unwrap();
    assert_eq!(theirs, 19, "not the lowest priority");
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
    let once = Mutex::new(Some((begin, released, ended)));
    push(Arc::new(move |_| {
        let (begin, released, ended) = once.lock().unwrap().take().unwrap();
        begin.send(()).unwrap();
        let _ = released.recv();
        ended.send(()).unwrap();
        Ok(())
    }));
    shared.work_waits();
    timeout(LONG, begun).await.unwrap().unwrap();
    let (answer, answered) = oneshot::channel::<()>();
    let answer = Mutex::new(Some(answer));
    push(Arc::new(move |_| {
        answer.lock().unwrap().take().unwrap().send(()).unwrap();
        Ok(())
    }));
    drop(pool);
    assert!(timeout(LONG, answered).await.unwrap().is_err(), "waiting work was not refused");
    drop(release);
    assert!(timeout(LONG, end).await.unwrap().is_ok(), "running work was not finished");
    let refused = shared.lock().push(unknown(1), Arc::new(|_| Ok(())));
    assert!(matches!(refused, Err(NotDone::Stopped)));
    let ended = async {
        while Arc::strong_count(&shared) > 1 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, ended).await.expect("the thread is still running");
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
    let help = Some(help(Duration::from_millis(50)));
    let pool = WorkPool::start(Setup { help, ..setup(1, 9, 9) }).unwrap();
    let (_release, _first) = occupied(&pool).await;
    for _ in 0..3 {
        assert_eq!(timeout(LONG, pool.run(unknown(1), |_| 7)).await, Ok(Ok(7)));
    }
}

#[tokio::test]
async fn work_goes_on_soon_when_other_programs_keep_the_cores_busy() {
    // This process has had no CPU time at all.
    let core_time = || Some(Duration::ZERO);
    let help = Some(Help { core_time, crowded_after: Duration::from_millis(10), ..help(NEVER) });
    let pool = WorkPool::start(Setup { help, ..setup(1, 9, 9) }).unwrap();
    let (_release, _first) = occupied(&pool).await;
    for _ in 0..3 {
        assert_eq!(timeout(LONG, pool.run(unknown(1), |_| 7)).await, Ok(Ok(7)));
    }
}

#[tokio::test]
async fn work_waits_while_this_process_needs_the_cores_itself() {
    // This process has had as much as there is.
    let core_time = || Some(busy_process());
    let help = Some(Help { core_time, crowded_after: Duration::from_millis(10), ..help(NEVER) });
    let pool = WorkPool::start(Setup { help, ..setup(1, 9, 9) }).unwrap();
    let (_release, _first) = occupied(&pool).await;
    let soon = Duration::from_secs(1);
    assert!(timeout(soon, pool.run(unknown(1), |_| 7)).await.is_err());
}

#[cfg(target_os = "linux")]
#[test]
fn work_under_way_is_told_from_what_the_process_does_beside_it() {
    let hashers = Arc::new(load::Hashers::default());
    let (seen, done) = (Arc::clone(&hashers), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let until = Arc::clone(&done);
    let hashing = std::thread::spawn(move || {
        seen.add_this_thread();
        while !until.load(Ordering::Relaxed) {}
    });
    let enough = Duration::from_millis(30);
    let began = worker::now();
    while hashers.ran().unwrap() < enough && began.elapsed() < LONG {}
    let ran = hashers.ran().unwrap();
    done.store(true, Ordering::Relaxed);
    hashing.join().unwrap();
    assert!(ran >= enough, "work that has not ended isn't counted: {ran:?}");
}

#[tokio::test]
async fn work_that_a_thread_is_stuck_with_is_done_once_more() {
    let help = Some(help(Duration::from_millis(50)));
    let pool = WorkPool::start(Setup { help, ..setup(1, 9, 9) }).unwrap();
    let (release, first) = occupied(&pool).await;
    assert_eq!(timeout(LONG, first).await, Ok(Ok(())));
    drop(release);
    assert_eq!(timeout(LONG, pool.run(unknown(1), |_| 7)).await, Ok(Ok(7)));
}

#[test]
fn work_is_done_twice_at_most() {
    let mut queue = Queue::new(QueueLimits { total: 9, per_group: 9 }, 1);
    let done = Arc::default();
    note(&mut queue, 7, &done);
    assert!(queue.take_again().is_none(), "no thread has taken the work yet");
    let first = queue.take().unwrap();
    let again = queue.take_again().unwrap();
    assert!(queue.take_again().is_none() && queue.oldest_running().is_none());
    queue.finished(&again, Duration::ZERO, Duration::ZERO);
    queue.finished(&first, Duration::ZERO, Duration::ZERO);
    assert!(queue.take().is_none() && queue.take_again().is_none());
}

#[test]
fn a_thread_that_gets_no_core_is_told_from_one_that_gets_enough() {
    let of = |ran, waited| {
        let (ran, waited) = (Duration::from_millis(ran), Duration::from_millis(waited));
        worker::CoreTime { ran, waited }
    };
    assert!(of(10, 50).is_less_than_a(5) && !of(10, 30).is_less_than_a(5));
    assert!(!of(0, 0).is_less_than_a(5), "a thread without work lacks no core");
    assert!(of(1, 9).tells() && !of(0, 1).tells(), "a short time is not meaningful");
}

#[tokio::test]
async fn a_known_device_is_helped_sooner() {
    let help = Some(help(Duration::from_secs(8)));
    let pool = WorkPool::start(Setup { help, ..setup(1, 9, 9) }).unwrap();
    let (_release, _first) = occupied(&pool).await;
    let soon = Duration::from_secs(5);
    assert_eq!(timeout(soon, pool.run(known(1), |_| 7)).await, Ok(Ok(7)));
}

#[tokio::test]
async fn whoever_has_no_place_can_learn_so_before() {
    let pool = pool(1, 9, 1);
    let (_release, _first) = occupied(&pool).await;
    assert_eq!(pool.check_capacity(unknown(1)), Ok(()));
    let _waiting = queued(&pool, unknown(1), |_| ());
    assert!(matches!(pool.check_capacity(unknown(1)), Err(NotDone::Busy { .. })));
    assert_eq!(pool.check_capacity(unknown(2)), Ok(()));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_thread_that_gets_no_core_takes_no_work_until_it_would() {
    const PATIENT: Duration = Duration::from_secs(60);
    /// Uses a few milliseconds of CPU time, however long that takes.
    fn work(_: &mut Scratch) {
        let before = worker::CoreTime::of_this_thread().unwrap();
        while before.so_far().ran < Duration::from_millis(4) {
            (0..1000).for_each(|_| std::hint::spin_loop());
        }
    }
    async fn until(pool: &WorkPool<Scratch>, gives_way: bool) {
        let reached = async {
            while pool.shared.lock().all_give_way() != gives_way {
                pool.run(unknown(1), work).await.unwrap();
            }
        };
        timeout(PATIENT, reached).await.unwrap();
    }
    let help = Some(help(Duration::from_millis(50)));
    let idle_release = Duration::from_millis(100);
    let setup = Setup { help, idle_release, ..setup(1, 9, 9) };
    let pool = WorkPool::start(setup).unwrap();
    let busy = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let cores = std::thread::available_parallelism().unwrap().get();
    let others: Vec<_> = (0..cores)
        .map(|_| {
            let busy = Arc::clone(&busy);
            std::thread::spawn(move || while busy.load(Ordering::Relaxed) {})
        })
        .collect();
    until(&pool, true).await;
    let given_back = async {
        while !pool.shared.spare().is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENT, given_back).await.expect("memory is kept while no thread works");
    assert!(pool.shared.lock().all_give_way());
    busy.store(false, Ordering::Relaxed);
    others.into_iter().for_each(|other| other.join().unwrap());
    until(&pool, false).await;
}
