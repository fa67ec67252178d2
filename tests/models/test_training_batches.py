"""Batches are drawn and changed by seed and epoch alone."""

from __future__ import annotations

import numpy as np

from dsconvert.models.training.batches import epoch_batches


class TestBatches:
    images = np.random.default_rng(0).random((20, 8, 6, 2))

    def batches(self, augment=(), **how):
        how = {"seed": 0, "epoch": 1} | how
        return list(epoch_batches((self.images, np.arange(20.0)), 6, augment, **how))

    def test_every_sample_at_most_once(self):
        batches = self.batches()
        indices = np.concatenate([index for index, _ in batches])
        assert len(batches) == 3
        assert len(set(indices)) == 18
        for index, (images, numbers) in batches:
            np.testing.assert_array_equal(images, self.images[index])
            np.testing.assert_array_equal(numbers, index)

    def test_order_depends_on_seed_and_epoch_only(self):
        orders = [
            tuple(np.concatenate([index for index, _ in self.batches(**how)]))
            for how in ({}, {}, {"epoch": 2}, {"seed": 1})
        ]
        assert orders[0] == orders[1]
        assert len(set(orders)) == 3

    def test_flip(self):
        flipped = 0
        for index, (images, numbers) in self.batches(("flip",)):
            np.testing.assert_array_equal(numbers, index)
            for image, original in zip(images, self.images[index], strict=True):
                same = np.array_equal(image, original)
                assert same or np.array_equal(image, original[:, ::-1])
                flipped += not same
        assert 3 <= flipped <= 15

    def test_crop_moves_by_an_eighth(self):
        padded = np.pad(self.images, ((0, 0), (1, 1), (0, 0), (0, 0)), mode="reflect")
        moves = set()
        for index, (images, _) in self.batches(("crop",)):
            for image, wide in zip(images, padded[index], strict=True):
                found = [top for top in range(3) if np.array_equal(image, wide[top : top + 8])]
                assert len(found) == 1
                moves.update(found)
        assert moves == {0, 1, 2}

    def test_a_mixture_is_the_same_in_all_inputs(self):
        numbers = np.arange(20.0)
        inputs = (np.ones((20, 4, 4, 1)) * numbers[:, None, None, None], numbers)
        for index, (images, mixed) in epoch_batches(inputs, 6, ("mix",), seed=0, epoch=1):
            np.testing.assert_array_equal(images, np.ones_like(images) * mixed[:, None, None, None])
            reach = np.abs(numbers[index][:, None] - numbers[index]).max(axis=1)
            assert (np.abs(mixed - index) <= 0.5 * reach + 1e-5).all()
            assert not np.array_equal(mixed, index)

    def test_light_keeps_what_is_no_image(self):
        for index, (images, numbers) in self.batches(("light",)):
            np.testing.assert_array_equal(numbers, index)
            for image, original in zip(images, self.images[index], strict=True):
                gain, shift = np.polyfit(original.ravel(), image.ravel(), 1)
                assert 0.8 <= gain <= 1.2
                assert abs(shift) <= 0.2 * self.images.std() + 1e-6
                np.testing.assert_allclose(image, gain * original + shift, atol=1e-5)

    def test_done_batches_change_nothing(self):
        every = self.batches(("flip", "crop", "light", "mix"))
        rest = self.batches(("flip", "crop", "light", "mix"), done=1)
        for (_, whole), (_, left) in zip(every[1:], rest, strict=True):
            assert all(map(np.array_equal, whole, left))
