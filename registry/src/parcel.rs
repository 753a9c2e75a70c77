//! How much of what waits goes along with one message.

/// How many of the first of these sizes, in bytes, go into `room`: `most` of them at most, and the
/// first whatever its size, since nothing would take it otherwise.
pub fn fitting(sizes: impl Iterator<Item = usize>, most: usize, room: usize) -> usize {
    let mut taken = 0;
    let counted = sizes.take(most).scan(room, |room, size| {
        let fits = size <= *room;
        *room = room.saturating_sub(size);
        taken += 1;
        (fits || taken == 1).then_some(())
    });
    counted.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_number_and_by_bytes() {
        let fitting = |sizes: &[usize], most, room| fitting(sizes.iter().copied(), most, room);
        assert_eq!(fitting(&[], 9, 9), 0);
        assert_eq!(fitting(&[3, 3, 3, 3], 9, 9), 3);
        assert_eq!(fitting(&[3, 3, 3], 2, 9), 2);
        assert_eq!(fitting(&[4, 9, 1], 9, 9), 1, "the order is kept");
        assert_eq!(fitting(&[10, 1], 9, 9), 1, "too large by itself");
        assert_eq!(fitting(&[9, 0, 1], 9, 9), 2);
    }
}
