"""python -m unittest discover bench"""

import unittest

import numpy as np

import guard
import report
import rows
import run
import verdict


class Verdicts(unittest.TestCase):
    def test_the_interval_of_a_ratio_covers_it_and_ignores_common_drift(self):
        drift = np.linspace(1, 3, 15)
        pairs = np.stack([1.2 * drift, drift], axis=1)
        facts = verdict.summarise(verdict.ratio_of_medians, pairs, gate=1.1, stretch=1.3)
        self.assertAlmostEqual(facts["value"], 1.2)
        self.assertAlmostEqual(facts["interval"][0], 1.2)
        self.assertEqual(facts["verdict"], "reached")

    def test_a_gate_is_missed_only_if_the_whole_interval_is_below(self):
        for value, bounds, expected in [
            (1.3, (1.2, 1.4), "stretch"),
            (1.15, (1.0, 1.3), "reached"),
            (1.05, (1.0, 1.1), "undecided"),
            (1.05, (1.0, 1.09), "missed"),
            (9.0, None, "too few pairs"),
        ]:
            self.assertEqual(verdict.verdict(value, bounds, 1.1, 1.2, lower_is_better=False), expected)
        self.assertEqual(verdict.verdict(1.05, (1.0, 1.1), 1.15, 1.08, lower_is_better=True), "stretch")
        self.assertEqual(verdict.verdict(1.3, (1.2, 1.4), 1.15, 1.08, lower_is_better=True), "missed")

    def test_few_pairs_have_no_interval(self):
        self.assertIsNone(verdict.interval(verdict.median, np.ones(verdict.ENOUGH_PAIRS - 1)))


class Turns(unittest.TestCase):
    def test_disturbed_turns_are_measured_again_and_the_stillest_fill_up_if_time_runs_out(self):
        bench = run.Bench(None, 3, 1, 1, None, None, None)
        seen = iter([1.0, 0.5, 0.95, 0.99])
        self.assertEqual([turn["stillness"] for turn in bench.repeat(lambda _: {"stillness": [next(seen)]})], [[1.0], [0.95], [0.99]])
        self.assertEqual(bench.left_out, [{"stillness": [0.5]}])
        seen = iter([0.3, 0.5, 0.95, 0.6, 0.4, 0.2])
        kept = bench.repeat(lambda _: {"stillness": [next(seen), 1.0]})
        self.assertEqual([min(turn["stillness"]) for turn in kept], [0.95, 0.6, 0.5])
        self.assertEqual(len(bench.left_out), 3)


class Pipeline(unittest.TestCase):
    def test_the_rate_is_read_from_what_embed_says(self):
        self.assertEqual(run.rate_said("24 images in 1.2 s, 20.3 images/s, 0 failed -> x.npy"), 20.3)
        self.assertEqual(run.rate_said("24 images in 15.0 s, 1.5 images/s, 0 failed -> x.npy"), 1.6)


class Rows(unittest.TestCase):
    def test_every_row_has_a_name_a_kind_and_a_model(self):
        for row in rows.read():
            self.assertRegex(row.name, r"^[a-z0-9-]+$")
            self.assertIn(row.kind, ("compare", "share", "first", "neighbours", "pipeline", "growth"))
            for model in row.points if row.along == "model" else [row.model]:
                self.assertIn(model, rows.MODELS)
            better = row.stretch <= row.gate if row.lower_is_better else row.stretch >= row.gate
            self.assertTrue(better, row.name)


class Report(unittest.TestCase):
    def test_a_row_without_a_run_is_not_yet_measured(self):
        self.assertIn(report.NOT_MEASURED, report.results(rows.read(), {}))

    def test_a_block_is_replaced_and_the_rest_is_kept(self):
        text = "a\n<!-- bench:x -->\nold\n<!-- /bench:x -->\nb\n"
        self.assertEqual(report.with_block(text, "x", "new"), text.replace("old", "new"))
        self.assertEqual(report.with_block(text, "y", "new"), text)


class Guard(unittest.TestCase):
    def test_more_instructions_and_more_spills_are_problems(self):
        loops = {"vdpbf16ps zmm": {"loops": 1, "most_multiply_adds": 24, "spills": 0}}
        expected = {"compiler": "rustc 1", "instructions": {"case": 1000}, "main_loops": loops}
        self.assertEqual(guard.problems(expected, {"case": 1020}, loops, "rustc 1"), [])
        self.assertEqual(len(guard.problems(expected, {"case": 1040}, loops, "rustc 1")), 1)
        self.assertEqual(guard.problems(expected, {"case": 1040}, loops, "rustc 2"), [])
        spilled = {"vdpbf16ps zmm": {"loops": 1, "most_multiply_adds": 24, "spills": 1}}
        self.assertEqual(len(guard.problems(expected, None, spilled, "rustc 1")), 1)


if __name__ == "__main__":
    unittest.main()
