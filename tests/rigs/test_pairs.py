"""The rig for pairs of changes; pairs.py says how it works."""

from pairs import run, world


def test_some_order_explains_what_two_changes_at_the_same_moment_do(serve, pytestconfig):
    options = pytestconfig.option
    with world(serve, options) as shared, world(serve, options) as alone:
        failures, complaints = run(shared, alone)
    assert (failures, complaints) == (0, 0)
