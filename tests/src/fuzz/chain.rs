//! Chain of incarnations: decoded, encoded, continued.

use fellbeck_core::incarnation::NO_PARENT;
use fellbeck_core::limits::CHAIN_MAX;
use fellbeck_core::{Epoch, IncarnationChain};

/// The input is an encoded chain. One that decodes is continued, as each open of a store does.
pub(super) fn incarnation_chain(data: &[u8]) -> bool {
    let Ok(mut chain) = IncarnationChain::decode(data) else {
        return false;
    };
    assert_eq!(chain.encode(), data, "a chain has one encoding");
    let links = chain.as_slice();
    assert!(links.len() <= CHAIN_MAX);
    for pair in links.windows(2) {
        assert!(pair[0].epoch < pair[1].epoch, "epochs rise");
        assert_eq!(pair[0].id, pair[1].parent, "each names the one before");
    }
    for link in links {
        assert_ne!(link.id, NO_PARENT);
        assert!(chain.find(&link.id).is_some());
    }
    // No store lives so long that its epochs run out, and the link refuses such a chain.
    let last = chain.newest().copied();
    if last.is_some_and(|last| last.epoch.0 == u32::MAX) {
        return true;
    }
    let before = chain.clone();
    chain
        .succeed(NO_PARENT, Epoch(1))
        .expect_err("an id of zeros is refused");
    assert_eq!(chain, before, "a refused link changes nothing");
    let next = chain.succeed([0xa5; 16], Epoch(1)).expect("a successor follows");
    assert_eq!(chain.newest(), Some(&next));
    assert_eq!(next.parent, last.map_or(NO_PARENT, |last| last.id));
    assert!(last.is_none_or(|last| last.epoch < next.epoch));
    assert!(
        chain.as_slice().len() <= CHAIN_MAX,
        "the oldest is forgotten beyond the bound"
    );
    assert_eq!(IncarnationChain::decode(&chain.encode()), Ok(chain));
    true
}
