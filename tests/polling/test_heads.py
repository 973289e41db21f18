"""The head of a list has the age since which it was seen; of several heads the oldest is chosen."""

from __future__ import annotations

from celerymeter.model import QueueHead
from celerymeter.polling.redis_messages import HeadMessage
from celerymeter.polling.redis_queues import HeadAges, oldest


def test_the_same_message_is_seen_since_the_first_poll() -> None:
    """Until another one is at the head."""
    watch = HeadAges()
    assert watch.observe({"q": HeadMessage("u", "t1")}, now=10)["q"].seen_since == 10
    assert watch.observe({"q": HeadMessage("u", "t1")}, now=20)["q"].seen_since == 10
    assert watch.observe({"q": HeadMessage("u", "t2")}, now=30)["q"].seen_since == 30


def test_a_list_that_was_empty_begins_anew() -> None:
    """A message that was taken and came back did not wait here meanwhile."""
    watch = HeadAges()
    watch.observe({"q": HeadMessage("u", "t1")}, now=10)
    watch.observe({}, now=20)
    assert watch.observe({"q": HeadMessage("u", "t1")}, now=30)["q"].seen_since == 30


def test_a_message_without_identity_is_always_new() -> None:
    """Two of them cannot be told apart, so no age is made up."""
    watch = HeadAges()
    watch.observe({"q": HeadMessage()}, now=10)
    assert watch.observe({"q": HeadMessage()}, now=20)["q"].seen_since == 20


def test_the_oldest_of_several_priorities() -> None:
    """By its stamp where there is one, else by how long it was seen; among equals the least urgent."""
    urgent, stamped, starving = QueueHead("a", None, 50), QueueHead("b", 5, 60), QueueHead("c", None, 50)
    assert oldest([urgent, stamped, starving]) == stamped
    assert oldest([urgent, starving]) == starving
    assert oldest([]) is None
