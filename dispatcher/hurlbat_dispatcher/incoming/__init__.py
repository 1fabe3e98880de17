"""Webhooks that other people's services send: who may send them, what they say, and which event comes of it.

    auth     how a sender proves who it is, as it is configured
    verify   whether a request is the sender's, by its headers and the bytes of its body
    body     what the body says, once that is known
    making   the event that comes of it: key, scope and id by expressions

All of it is pure: the door is `webhooks.py`, the rows are in `store/webhooks.py`.
"""
