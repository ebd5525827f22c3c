//! How the records of one entry are encoded: Fellbeck record batches on the edge, Kafka v2 batches in the cloud.

use bytes::Bytes;
use fellbeck_core::batch::Batch;
use fellbeck_core::{Offset, RecordBlock, Seq, kafka, limits};

use crate::config::Layout;
use crate::key::{HEAD_BYTES, Head};

/// Raw bytes that opening one stored batch may take: more than any batch that this store writes.
const RAW_MAX: usize = limits::BATCH_MAX_CLOUD;

/// The value of a segment entry.
pub(crate) fn encode(layout: Layout, head: Head, first: Seq, block: &RecordBlock) -> Vec<u8> {
    match layout {
        Layout::Edge => {
            let batch = Batch::seal(head.epoch, first, block);
            let mut value = Vec::with_capacity(HEAD_BYTES + batch.encoded_len());
            head.put(&mut value);
            batch.encode_into(&mut value);
            value
        }
        Layout::Cloud => {
            let batch = kafka::encode(block, offset_of(first), head.commit);
            let mut value = Vec::with_capacity(HEAD_BYTES + batch.len());
            head.put(&mut value);
            value.extend_from_slice(&batch);
            value
        }
    }
}

/// The records behind the head of an entry's value. `None`: damaged, or not the entry that its key and head claim.
pub(crate) fn decode(layout: Layout, head: &Head, first: Seq, bytes: &Bytes) -> Option<RecordBlock> {
    let block = match layout {
        Layout::Edge => parse(head, first, bytes)?.open(RAW_MAX).ok()?,
        Layout::Cloud => {
            let batch = kafka::decode(bytes, RAW_MAX).ok()?;
            (batch.base == offset_of(first)).then_some(batch.block)?
        }
    };
    (block.len() == head.count as usize).then_some(block)
}

/// The batch behind the head of an edge entry's value.
pub(crate) fn parse(head: &Head, first: Seq, bytes: &Bytes) -> Option<Batch> {
    let batch = Batch::parse(bytes.clone()).ok()?;
    (batch.header.first == first && batch.header.count == head.count && batch.header.epoch == head.epoch)
        .then_some(batch)
}

fn offset_of(first: Seq) -> Offset {
    Offset(first.0 - 1)
}
