//! W13 to W21: bodies that are no request.

use klamm_protocol::{ApiKey, Writer};

use crate::bed::Bed;

pub(crate) async fn send_all(bed: &mut Bed) {
    w13_w14_lengths(bed).await;
    w15_w17_counts(bed).await;
    w18_tags(bed).await;
    w19_w21_values(bed).await;
}

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    write(&mut writer);
    writer.finish().unwrap().into_bytes().unwrap().to_vec()
}

async fn w13_w14_lengths(bed: &mut Bed) {
    for count in [-2, i32::MIN, i32::MAX, 1_000_000, 4] {
        // An array of names, and a timeout.
        let body = [&count.to_be_bytes()[..], &[0, 1, b'a', 0, 0, 0, 9]].concat();
        bed.refused("W13 DeleteTopics", ApiKey::DeleteTopics, 1, &body).await;
        bed.refused("W13 Metadata", ApiKey::Metadata, 1, &body[..7]).await;
        // Behind the transactional id, acks and the timeout.
        let body = [&[0xff, 0xff, 0, 1, 0, 0, 0, 9][..], &count.to_be_bytes(), &[0, 1, b't']].concat();
        bed.refused("W13 Produce", ApiKey::Produce, 3, &body).await;
    }
    let lengths: [&[u8]; 5] = [
        &[0],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x82, 0x80, 0x80, 0x80, 0x80, 0],
        &[0x82, 0x80, 0x80, 0x80, 0x10],
        &[0x82, 0x80],
    ];
    for length in lengths {
        let body = [length, &[2, b'a', 0, 0, 0, 9, 0]].concat();
        bed.refused("W14 DeleteTopics", ApiKey::DeleteTopics, 4, &body).await;
    }
}

/// W16 has no request of its own: every element of every request has at least a byte.
async fn w15_w17_counts(bed: &mut Bed) {
    let nested = written(|writer| {
        writer.unsigned_varint(1001);
        for _ in 0..1000 {
            writer.unsigned_varint(1); // an empty name
            writer.int32(1);
            writer.int16(1);
            writer.unsigned_varint(1001);
            for _ in 0..1000 {
                writer.int32(0);
                writer.unsigned_varint(1);
                writer.no_tags();
            }
            writer.unsigned_varint(1);
            writer.no_tags();
        }
        writer.int32(0);
        writer.bool(false);
        writer.no_tags();
    });
    bed.refused("W15 CreateTopics", ApiKey::CreateTopics, 7, &nested).await;
    let tagged = written(|writer| {
        writer.unsigned_varint(1);
        writer.int32(9);
        writer.unsigned_varint(2_000_000);
        for tag in 0..2_000_000 {
            writer.unsigned_varint(tag);
            writer.unsigned_varint(0);
        }
    });
    bed.refused("W17 DeleteTopics", ApiKey::DeleteTopics, 4, &tagged).await;
}

async fn w18_tags(bed: &mut Bed) {
    // Two tags, each with its size.
    let tags: [(&str, &[u8]); 4] = [
        ("W18 twice", &[2, 5, 0, 5, 0]),
        ("W18 descending", &[2, 6, 0, 5, 0]),
        ("W18 larger than what remains", &[1, 5, 100]),
        ("W18 fewer than told", &[3, 5, 0, 6, 0]),
    ];
    for (row, tags) in tags {
        let body = [&[2, 2, b'a', 0, 0, 0, 9][..], tags].concat();
        bed.refused(row, ApiKey::DeleteTopics, 4, &body).await;
    }
    // Fetch 12 knows tag 0 as the id of a cluster; this one is longer than its field.
    let fetch = written(|writer| {
        writer.int32(-1);
        writer.int32(0);
        writer.int32(0);
        writer.int32(1 << 20);
        writer.int8(0);
        writer.int32(0);
        writer.int32(-1);
        writer.unsigned_varint(1);
        writer.unsigned_varint(1);
        writer.unsigned_varint(1);
        [1, 0, 2, 9, b'c'].into_iter().for_each(|byte| writer.int8(byte.cast_signed()));
    });
    bed.refused("W18 a known tag of a wrong size", ApiKey::Fetch, 12, &fetch).await;
}

async fn w19_w21_values(bed: &mut Bed) {
    for length in [-2_i16, i16::MIN, i16::MAX, 7] {
        let body = [&[0, 0, 0, 1][..], &length.to_be_bytes(), &[b'a', 0, 0, 0, 9]].concat();
        bed.refused("W19 DeleteTopics", ApiKey::DeleteTopics, 1, &body).await;
    }
    for length in [0, 0x7f] {
        let body = [2, length, b'a', 0, 0, 0, 9, 0];
        bed.refused("W19 compact DeleteTopics", ApiKey::DeleteTopics, 4, &body).await;
    }
    // Produce 3 up to the length of the records: one topic "t", partition 0.
    let head = [0xff, 0xff, 0, 1, 0, 0, 0, 9, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0];
    for length in [-2, i32::MIN, i32::MAX, i32::MAX - 60, 5] {
        let body = [&head[..], &length.to_be_bytes(), &[1, 2, 3, 4]].concat();
        bed.refused("W20 Produce", ApiKey::Produce, 3, &body).await;
    }
    let endless = [0xff; 11];
    bed.refused("W21 DeleteTopics", ApiKey::DeleteTopics, 4, &endless).await;
    let in_tags = [&[2, 2, b'a', 0, 0, 0, 9][..], &endless].concat();
    bed.refused("W21 in tags", ApiKey::DeleteTopics, 4, &in_tags).await;
}
