//! Whatever the checked reader accepts can be read in full, split, and read again.
#![no_main]

use codec::BodyView;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(view) = BodyView::parse_trusted(bytes) {
        read(&view);
    }
    let Ok(view) = BodyView::parse(bytes) else { return };
    read(&view);
    let parts: Vec<u32> = (0..view.rows() as u32).map(|row| row % 3).collect();
    let rows: usize = view
        .split(&parts, true)
        .iter()
        .map(|(_, body)| BodyView::parse(&body.bytes).expect("a part of a body is a body").rows())
        .sum();
    assert_eq!(rows, view.rows());
});

fn read(view: &BodyView<'_>) {
    for row in 0..view.rows() {
        let _ = view.ids().and_then(|ids| ids.get(row));
        let _ = view.batch_indexes().map(|indexes| indexes.get(row));
        view.dimensions().iter().for_each(|dimension| _ = dimension.value(row));
        view.metrics().iter().for_each(|metric| _ = metric.values().get(row));
    }
}
