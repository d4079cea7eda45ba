//! The hall with a fake encoder and fake sources: order, failures, bounds, cancellation.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use dinov3_engine::{
    CancelToken, ImageFeatures, Item, ItemError, ItemErrorKind, RunError, RunOptions, Sink, SinkError, Source, Summary,
    run,
};
use dinov3_model::array::Array;
use dinov3_model::encoder::{EncodeError, Encoder, Features, ImageBatch, Pooling, Request};
use dinov3_model::spec::{self, ModelSpec};

/// Pseudo-random numbers that are the same in every run.
fn scrambled(seed: usize) -> usize {
    let mut x = (seed as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) as usize
}

/// Decoded bytes that are alive between load and encode.
#[derive(Default)]
struct Meter {
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl Meter {
    fn add(&self, bytes: usize) {
        let now = self.now.fetch_add(bytes, Ordering::SeqCst) + bytes;
        self.peak.fetch_max(now, Ordering::SeqCst);
    }
}

type SizeOf = Box<dyn Fn(usize) -> (usize, usize) + Send + Sync>;
type Before = Box<dyn Fn(usize) -> Result<(), ItemError> + Send + Sync>;

struct Fake {
    count: usize,
    size: SizeOf,
    before: Before,
    known: fn(usize) -> bool,
    meter: Arc<Meter>,
}

impl Fake {
    fn new(count: usize) -> Self {
        let (size, before) = (Box::new(|_| (16, 16)), Box::new(|_| Ok(())));
        Self { count, size, before, known: |_| false, meter: Arc::default() }
    }

    fn known(mut self, known: fn(usize) -> bool) -> Self {
        self.known = known;
        self
    }

    fn size(mut self, size: impl Fn(usize) -> (usize, usize) + Send + Sync + 'static) -> Self {
        self.size = Box::new(size);
        self
    }

    fn before(mut self, before: impl Fn(usize) -> Result<(), ItemError> + Send + Sync + 'static) -> Self {
        self.before = Box::new(before);
        self
    }
}

impl Source for Fake {
    type Key = usize;

    fn keys(&self) -> Box<dyn Iterator<Item = usize> + Send + '_> {
        Box::new(0..self.count)
    }

    fn len_hint(&self) -> Option<usize> {
        Some(self.count)
    }

    fn is_known(&self, &key: &usize) -> bool {
        (self.known)(key)
    }

    fn load(&self, &key: &usize) -> Result<Option<Item>, ItemError> {
        assert!(!(self.known)(key));
        (self.before)(key)?;
        let (height_px, width_px) = (self.size)(key);
        let value = |index: usize| (scrambled(key * 31 + index) % 1000) as f32 / 7.0;
        let pixels: Vec<f32> = (0..3 * height_px * width_px).map(value).collect();
        self.meter.add(size_of_val(pixels.as_slice()));
        Ok(Some(Item { height_px, width_px, pixels }))
    }
}

/// Two numbers per image; refuses sizes that 16 does not divide, as a ViT does.
struct FakeEncoder {
    spec: ModelSpec,
    batches: Vec<usize>,
    delay: Duration,
    meter: Arc<Meter>,
}

impl FakeEncoder {
    fn new(source: &Fake) -> Self {
        Self {
            spec: spec::all().swap_remove(0),
            batches: Vec::new(),
            delay: Duration::ZERO,
            meter: source.meter.clone(),
        }
    }
}

impl Encoder for FakeEncoder {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn encode(
        &mut self,
        batch: &ImageBatch<'_>,
        request: &Request,
        features: &mut Features,
    ) -> Result<(), EncodeError> {
        std::thread::sleep(self.delay);
        self.batches.push(batch.count);
        let bytes = size_of_val(batch.pixels);
        self.meter.now.fetch_sub(bytes, Ordering::SeqCst);
        dinov3_model::encoder::check(&self.spec, batch, request)?;
        let mut array = Array::default();
        for image in batch.pixels.chunks(batch.pixels.len() / batch.count) {
            let sum: f32 = image.iter().sum();
            array.data.extend([sum, image[image.len() / 2]]);
        }
        array.shape = vec![batch.count, 2];
        features.count = batch.count;
        features.pooled = vec![(Pooling::Average, array)];
        Ok(())
    }
}

#[derive(Default)]
struct Rows {
    rows: Vec<(usize, Result<Vec<f32>, ItemError>)>,
    summary: Option<Summary>,
    fail_at: Option<usize>,
}

impl Sink<usize> for Rows {
    fn write(&mut self, &key: &usize, features: ImageFeatures<'_>) -> Result<(), SinkError> {
        if self.fail_at == Some(key) {
            return Err(SinkError::new("disk full"));
        }
        let (pooling, view) = features.pooled(0).expect("the fake encoder fills it");
        assert_eq!((pooling, view.shape), (Pooling::Average, &[2][..]));
        self.rows.push((key, Ok(view.data.to_vec())));
        Ok(())
    }

    fn known(&mut self, &key: &usize) -> Result<(), SinkError> {
        self.rows.push((key, Ok(Vec::new())));
        Ok(())
    }

    fn failed(&mut self, &key: &usize, error: &ItemError) -> Result<(), SinkError> {
        self.rows.push((key, Err(error.clone())));
        Ok(())
    }

    fn finish(&mut self, summary: &Summary) -> Result<(), SinkError> {
        assert!(self.summary.replace(summary.clone()).is_none());
        Ok(())
    }
}

struct Outcome {
    result: Result<Summary, RunError>,
    sink: Rows,
    batches: Vec<usize>,
}

/// Runs in a thread of its own with a deadline, so that a deadlock fails a test instead of hanging it.
fn outcome_with(
    source: Fake,
    options: RunOptions,
    sink: Rows,
    prepare: impl FnOnce(&mut FakeEncoder) + Send + 'static,
) -> Outcome {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut encoder = FakeEncoder::new(&source);
        prepare(&mut encoder);
        let mut sink = sink;
        let request = Request::new().poolings([Pooling::Average]);
        let result = run(&source, &mut encoder, &mut sink, &request, &options);
        let batches = encoder.batches;
        let _ = sender.send(Outcome { result, sink, batches });
    });
    match receiver.recv_timeout(Duration::from_secs(30)) {
        Ok(outcome) => outcome,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the run hangs"),
        Err(_) => std::panic::resume_unwind(thread.join().expect_err("it sent nothing")),
    }
}

fn outcome(source: Fake, options: RunOptions) -> Outcome {
    outcome_with(source, options, Rows::default(), |_| {})
}

/// The rows that encoding one image at a time, on one thread, gives.
fn one_by_one(source: Fake) -> Vec<(usize, Result<Vec<f32>, ItemError>)> {
    let options = RunOptions::new().batch_size(1).loader_threads(1);
    outcome(source, options).sink.rows
}

fn mixed(key: usize) -> (usize, usize) {
    [(16, 16), (32, 16), (16, 48), (32, 32)][scrambled(key) % 4]
}

fn shaky(key: usize) -> Result<(), ItemError> {
    std::thread::sleep(Duration::from_micros((scrambled(key + 5) % 3000) as u64));
    Ok(())
}

/// Every third image shall have no row.
struct Sparse(Fake);

impl Source for Sparse {
    type Key = usize;

    fn keys(&self) -> Box<dyn Iterator<Item = usize> + Send + '_> {
        self.0.keys()
    }

    fn load(&self, key: &usize) -> Result<Option<Item>, ItemError> {
        if key.is_multiple_of(3) { Ok(None) } else { self.0.load(key) }
    }
}

#[test]
fn skipped_images_have_no_row_and_are_no_failures() {
    let mut encoder = FakeEncoder::new(&Fake::new(0));
    encoder.meter.now.store(1 << 40, Ordering::SeqCst);
    let mut sink = Rows::default();
    let request = Request::new().poolings([Pooling::Average]);
    let options = RunOptions::new().batch_size(4).strict(true);
    let summary = run(&Sparse(Fake::new(100)), &mut encoder, &mut sink, &request, &options).unwrap();
    assert_eq!((summary.done, summary.skipped, summary.failed.len()), (66, 34, 0));
    let rows: Vec<usize> = sink.rows.iter().map(|(key, _)| *key).collect();
    assert_eq!(rows, (0..100).filter(|key| key % 3 != 0).collect::<Vec<_>>());
}

#[test]
fn order_is_kept_with_mixed_sizes_and_random_delays() {
    let expected = one_by_one(Fake::new(300).size(mixed));
    for threads in [1, 3, 16] {
        let options = RunOptions::new().loader_threads(threads);
        let run = outcome(Fake::new(300).size(mixed).before(shaky), options);
        assert_eq!(run.sink.rows, expected);
        let summary = run.result.unwrap();
        assert_eq!((summary.done, summary.failed.len()), (300, 0));
        assert_eq!(run.sink.summary, Some(summary));
        let full = run.batches.iter().filter(|&&count| count == 8).count();
        assert!(full >= 300 / 8 - 4, "mixed sizes still batch: {full}");
    }
}

#[test]
fn batches_do_not_depend_on_threads_or_timing() {
    let batches = |threads, delayed: bool| {
        let source = Fake::new(200).size(mixed);
        let source = if delayed { source.before(shaky) } else { source };
        let options = RunOptions::new().loader_threads(threads).reorder_window(11).memory_limit_bytes(100_000);
        outcome(source, options).batches
    };
    let expected = batches(1, false);
    assert_eq!(batches(7, true), expected);
    assert_eq!(batches(3, true), expected);
}

#[test]
fn a_bad_image_leaves_the_others_identical() {
    let expected = one_by_one(Fake::new(32));
    let bad = |key| match key {
        13 => Err(ItemError::new(ItemErrorKind::Decode, "truncated")),
        _ => Ok(()),
    };
    let run = outcome(Fake::new(32).before(bad), RunOptions::new().batch_size(32));
    assert_eq!(run.batches, [31]);
    assert_eq!(run.sink.rows.len(), 32);
    for (row, good) in run.sink.rows.iter().zip(&expected) {
        match row {
            (13, Err(error)) => assert_eq!(error.kind, ItemErrorKind::Decode),
            row => assert_eq!(row, good),
        }
    }
    let summary = run.result.unwrap();
    assert_eq!((summary.done, summary.failed[0].position), (31, 13));
    assert_eq!(summary.failed[0].error.message, "truncated");
}

#[test]
fn a_refused_size_fails_its_images_only() {
    let size = |key| if key % 10 == 3 { (20, 16) } else { (16, 16) };
    let run = outcome(Fake::new(50).size(size), RunOptions::new());
    let summary = run.result.unwrap();
    assert_eq!((summary.done, summary.failed.len()), (45, 5));
    for (key, row) in &run.sink.rows {
        match row {
            Ok(_) => assert_ne!(key % 10, 3),
            Err(error) => {
                assert_eq!((key % 10, error.kind), (3, ItemErrorKind::Encode));
                assert!(error.message.contains("divisible by 16"), "{error}");
            }
        }
    }
    assert!(run.sink.rows.is_sorted_by_key(|(key, _)| *key));
}

#[test]
fn a_panic_in_a_loader_fails_one_image() {
    let before = |key| {
        assert_ne!(key, 4, "loader bug");
        Ok(())
    };
    let run = outcome(Fake::new(20).before(before), RunOptions::new());
    let failed = run.result.unwrap().failed;
    assert_eq!(failed.len(), 1);
    assert_eq!((failed[0].position, failed[0].error.kind), (4, ItemErrorKind::Panicked));
    assert!(failed[0].error.message.contains("loader bug"));
    assert_eq!(run.sink.rows.len(), 20);
}

#[test]
fn an_item_of_the_wrong_length_fails_alone() {
    struct Short;
    impl Source for Short {
        type Key = usize;
        fn keys(&self) -> Box<dyn Iterator<Item = usize> + Send + '_> {
            Box::new(0..9)
        }
        fn load(&self, &key: &usize) -> Result<Option<Item>, ItemError> {
            let (height_px, width_px, values) = match key {
                2 => (16, 16, 5),
                3 => (usize::MAX, 2, 0),
                _ => (16, 16, 768),
            };
            let pixels = vec![1.0; values];
            Ok(Some(Item { height_px, width_px, pixels }))
        }
    }
    let mut encoder = FakeEncoder::new(&Fake::new(0));
    encoder.meter.now.store(1 << 40, Ordering::SeqCst);
    let mut sink = Rows::default();
    let request = Request::new().poolings([Pooling::Average]);
    let options = RunOptions::new();
    let summary = run(&Short, &mut encoder, &mut sink, &request, &options).unwrap();
    let failed: Vec<usize> = summary.failed.iter().map(|item| item.position).collect();
    assert_eq!((summary.done, failed), (7, vec![2, 3]));
}

#[test]
fn strict_stops_at_the_first_failure() {
    let bad = |key| match key {
        17 | 40 => Err(ItemError::new(ItemErrorKind::Read, "gone")),
        _ => Ok(()),
    };
    let options = RunOptions::new().strict(true).loader_threads(4);
    let run = outcome(Fake::new(100_000).before(bad), options.clone());
    assert!(matches!(run.result, Err(RunError::Item { position: 17, .. })));
    assert_eq!(run.sink.summary, None);

    let size = |key| if key == 5 { (17, 16) } else { (16, 16) };
    let run = outcome(Fake::new(30).size(size), options);
    assert!(matches!(run.result, Err(RunError::Item { position: 5, .. })));
    assert_eq!(run.sink.summary, None);
}

#[test]
fn cancelling_stops_without_output() {
    let token = CancelToken::new();
    let inside = token.clone();
    let options = RunOptions::new().cancel(token).progress(move |progress| {
        if progress.done >= 24 {
            inside.cancel();
        }
    });
    let run = outcome(Fake::new(1_000_000), options);
    assert!(matches!(run.result, Err(RunError::Cancelled)));
    assert_eq!(run.sink.rows.len(), 24);
    assert_eq!(run.sink.summary, None);

    // Also while nothing arrives.
    let token = CancelToken::new();
    let inside = token.clone();
    let before = move |_| {
        inside.cancel();
        std::thread::sleep(Duration::from_millis(200));
        Ok(())
    };
    let options = RunOptions::new().cancel(token).loader_threads(1);
    let run = outcome(Fake::new(1000).before(before), options);
    assert!(matches!(run.result, Err(RunError::Cancelled)));
    assert!(run.batches.is_empty());
}

#[test]
fn known_images_are_not_loaded_and_keep_their_place() {
    let known: fn(usize) -> bool = |key| !scrambled(key).is_multiple_of(3);
    let expected = one_by_one(Fake::new(300).size(mixed));
    let progress = Arc::new(std::sync::Mutex::new(None));
    let last = progress.clone();
    let options = RunOptions::new().progress(move |progress| *last.lock().unwrap() = Some(*progress));
    let run = outcome(Fake::new(300).size(mixed).known(known).before(shaky), options);
    let count = (0..300).filter(|&key| known(key)).count();
    let summary = run.result.unwrap();
    assert_eq!((summary.done, summary.known), (300, count));
    assert_eq!(run.batches.iter().sum::<usize>(), 300 - count);
    for ((found, row), (key, whole)) in run.sink.rows.into_iter().zip(expected) {
        assert_eq!(found, key);
        assert_eq!(row, if known(key) { Ok(Vec::new()) } else { whole });
    }
    let progress = progress.lock().unwrap().unwrap();
    assert_eq!((progress.done, progress.known), (300, count));
}

#[test]
fn slow_and_fast_sources() {
    let expected = one_by_one(Fake::new(40));
    let slow = |_| {
        std::thread::sleep(Duration::from_millis(5));
        Ok(())
    };
    let run = outcome(Fake::new(40).before(slow), RunOptions::new().loader_threads(2));
    assert_eq!(run.sink.rows, expected);

    let prepare = |encoder: &mut FakeEncoder| encoder.delay = Duration::from_millis(5);
    let options = RunOptions::new().reorder_window(8);
    let run = outcome_with(Fake::new(40), options, Rows::default(), prepare);
    assert_eq!(run.sink.rows, expected);
}

#[test]
fn memory_stays_within_the_limit() {
    // 12 KiB per image, all sizes different so that nothing batches, and an encoder that cannot keep up.
    let limit = 20 * 12 * 1024;
    for threads in [1, 4] {
        let source = Fake::new(400).size(|key| [(16, 64), (64, 16), (32, 32)][key % 3]);
        let meter = source.meter.clone();
        let prepare = |encoder: &mut FakeEncoder| encoder.delay = Duration::from_micros(300);
        let options = RunOptions::new().batch_size(64).loader_threads(threads).memory_limit_bytes(limit);
        let run = outcome_with(source, options, Rows::default(), prepare);
        assert_eq!(run.result.unwrap().done, 400);
        let peak = meter.peak.load(Ordering::SeqCst);
        assert!(peak <= limit, "{peak} > {limit} with {threads} threads");
        assert!(peak >= limit / 2, "the room is used: {peak}");
    }
}

#[test]
fn the_number_of_rows_in_flight_is_bounded() {
    // One lonely image at the start must not make the others pile up behind it.
    let source = Fake::new(3000).size(|key| if key == 0 { (32, 32) } else { (16, 16) });
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = taken.clone();
    let source = source.before(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let ahead = Arc::new(AtomicUsize::new(0));
    let most = ahead.clone();
    let options = RunOptions::new().loader_threads(2).reorder_window(20).progress(move |progress| {
        let open = taken.load(Ordering::SeqCst).saturating_sub(progress.done);
        most.fetch_max(open, Ordering::SeqCst);
    });
    let run = outcome(source, options);
    assert_eq!(run.result.unwrap().done, 3000);
    // Window, two batches and two threads ahead, one batch that was just written.
    let most = ahead.load(Ordering::SeqCst);
    assert!(most <= 20 + 16 + 2 + 8, "{most}");
}

#[test]
fn nothing_in_gives_a_finished_empty_output() {
    let run = outcome(Fake::new(0), RunOptions::new());
    assert_eq!(run.result.unwrap().done, 0);
    assert!(run.sink.rows.is_empty() && run.sink.summary.is_some());
    assert!(run.batches.is_empty());
}

#[test]
fn images_over_the_limit_still_go_through() {
    let size = |key| if key % 7 == 3 { (256, 256) } else { mixed(key) };
    let expected = one_by_one(Fake::new(60).size(size));
    for limit in [0, 1, 5000, 800_000] {
        let options = RunOptions::new().memory_limit_bytes(limit).loader_threads(4);
        let run = outcome(Fake::new(60).size(size).before(shaky), options);
        assert_eq!(run.sink.rows, expected, "limit {limit}");
    }
}

#[test]
fn extreme_options_still_work() {
    let expected = one_by_one(Fake::new(40).size(mixed));
    for options in [
        RunOptions::new().batch_size(0).loader_threads(0),
        RunOptions::new().batch_size(usize::MAX).reorder_window(0),
        RunOptions::new().reorder_window(usize::MAX).memory_limit_bytes(usize::MAX),
    ] {
        assert_eq!(outcome(Fake::new(40).size(mixed), options).sink.rows, expected);
    }
}

#[test]
fn a_sink_that_cannot_go_on_ends_the_run() {
    let sink = Rows { fail_at: Some(10), ..Rows::default() };
    let run = outcome_with(Fake::new(100_000), RunOptions::new(), sink, |_| {});
    assert!(matches!(run.result, Err(RunError::Sink(_))));
    assert_eq!((run.sink.rows.len(), run.sink.summary), (10, None));
}

#[test]
fn a_request_that_no_image_could_meet_ends_the_run() {
    let source = Fake::new(100);
    let mut encoder = FakeEncoder::new(&source);
    let mut sink = Rows::default();
    let request = Request::new().taps([9999]);
    let options = RunOptions::new();
    let result = run(&source, &mut encoder, &mut sink, &request, &options);
    assert!(matches!(result, Err(RunError::Request(_))));
    assert!(sink.rows.is_empty());
}

#[test]
fn an_encoder_that_breaks_its_contract_is_an_error() {
    struct Broken(ModelSpec, usize, usize);
    impl Encoder for Broken {
        fn spec(&self) -> &ModelSpec {
            &self.0
        }
        fn encode(&mut self, _: &ImageBatch<'_>, _: &Request, features: &mut Features) -> Result<(), EncodeError> {
            features.count = self.1;
            let mut array = Array::zeros(&[self.1, 2]);
            array.data.truncate(self.2);
            features.pooled = vec![(Pooling::Average, array)];
            Ok(())
        }
    }
    for (count, values) in [(7, 99), (0, 99), (8, 15)] {
        let mut encoder = Broken(spec::all().swap_remove(0), count, values);
        let mut sink = Rows::default();
        let (request, options) = (Request::new(), RunOptions::new());
        let result = run(&Fake::new(8), &mut encoder, &mut sink, &request, &options);
        assert!(matches!(result, Err(RunError::Encoder { .. })));
    }
}

#[test]
fn panics_of_encoder_and_key_iterator_do_not_hang() {
    struct Keys;
    impl Source for Keys {
        type Key = usize;
        fn keys(&self) -> Box<dyn Iterator<Item = usize> + Send + '_> {
            Box::new((0..20).inspect(|&key| assert!(key < 10, "listing bug")))
        }
        fn load(&self, _: &usize) -> Result<Option<Item>, ItemError> {
            Err(ItemError::new(ItemErrorKind::Other, "unused"))
        }
    }
    let mut encoder = FakeEncoder::new(&Fake::new(0));
    let mut sink = Rows::default();
    let (request, options) = (Request::new(), RunOptions::new());
    let result = run(&Keys, &mut encoder, &mut sink, &request, &options);
    assert!(matches!(result, Err(RunError::Source { message }) if message.contains("listing bug")));
    assert_eq!((sink.rows.len(), sink.summary), (10, None));

    let result = std::panic::catch_unwind(|| {
        let options = RunOptions::new().progress(|_| panic!("callback bug"));
        outcome(Fake::new(100_000), options)
    });
    assert!(result.is_err());
}

#[test]
fn progress_counts_every_image() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = seen.clone();
    let bad = |key| match key % 9 {
        0 => Err(ItemError::new(ItemErrorKind::Read, "gone")),
        _ => Ok(()),
    };
    let options = RunOptions::new().progress(move |progress| log.lock().unwrap().push(*progress));
    let run = outcome(Fake::new(90).before(bad), options);
    assert!(run.result.is_ok());
    let seen = seen.lock().unwrap();
    let last = seen.last().unwrap();
    assert_eq!((last.done, last.failed, last.total), (80, 10, Some(90)));
    assert!(last.images_per_second() > 0.0);
    assert!(seen.is_sorted_by_key(|progress| progress.done + progress.failed));
}

#[test]
fn loads_run_on_several_threads() {
    let seen = Arc::new(std::sync::Mutex::new(HashSet::new()));
    let log = seen.clone();
    let before = move |_| {
        std::thread::sleep(Duration::from_millis(2));
        log.lock().unwrap().insert(std::thread::current().id());
        Ok(())
    };
    let options = RunOptions::new().loader_threads(4);
    assert!(outcome(Fake::new(100).before(before), options).result.is_ok());
    assert_eq!(seen.lock().unwrap().len(), 4);
}
