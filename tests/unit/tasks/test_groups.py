"""Audits of groups go through the same batch as any other; an engine that cannot answer for them refuses them by name."""

from tasks.attribute import attribute_batch
from tests.tiny import shared_micro_bundle, shared_micro_model, tiny_queries
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import open_bundle
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.records import Claim, ClaimedAudit, ClaimedOutputGroup, FlaggedRecord


def records(count):
    """Flagged outputs of the tiny model."""
    return [
        FlaggedRecord(messages=row["messages"], completion=row["completion"], model="m")
        for row in tiny_queries(count)
    ]


def claim_with_group(bench):
    """A claim of one output and one group of three, the group claimed first."""
    made = records(3)
    for one in (made[0], made[1]):
        bench.audits.add(one)
    claim = bench.store.claim(1, limit=9, lease_s=60, max_attempts=3)
    first, second = claim.audits
    group = ClaimedOutputGroup(
        **second.model_dump(exclude={"record"}),
        record=made[0],
        members=tuple(made),
        against=(FlaggedRecord(prompt="May I?", completion="Ask us first.", model="any"),),
    )
    return Claim(owner=claim.owner, bundle_id=1, bundle_name=claim.bundle_name, audits=(group, first))


def work(bench, claim, attributor):
    """The batch's report."""
    return attribute_batch(
        claim,
        attributor=attributor,
        store=bench.store,
        settings=bench.settings.model_copy(update={"max_tokens": 256, "top_k": 4}),
        metrics=bench.metrics,
        clock=lambda: bench.now,
    )


def test_a_group_is_answered_beside_outputs(bench):
    """By the real engine: the group's citations hold each member's own score, the output's none."""
    claim = claim_with_group(bench)
    bundle = open_bundle(shared_micro_bundle(), ModelFolders(shared_micro_model()))
    assert work(bench, claim, LanguageAttributor(bundle)).counts() == {"done": 2}
    group, output = (bench.audits.by_id[one.audit_id].attribution for one in claim.audits)
    assert [len(one.member_influence) for one in group.citations if one.rank > 0] == [3] * 4
    assert [one.key for one in group.members] == ["output 1", "output 2", "output 3"]
    assert group.against == 1
    assert not any(one.member_influence for one in output.citations)


def test_an_engine_without_groups_refuses_them_alone(bench):
    """The group is rejected with a code; the output of the same claim is done."""
    claim = claim_with_group(bench)
    assert work(bench, claim, bench.engine()).counts() == {"done": 1, "rejected": 1}
    stored = bench.audits.by_id[claim.audits[0].audit_id]
    assert (stored.code, "single outputs only" in stored.reason) == ("groups_unsupported", True)
    assert isinstance(claim.audits[1], ClaimedAudit)
