"""The closed-loop driving simulator: scenarios, traffic, an ego vehicle, observations, outcomes.

Its job is to answer one question fast and repeatably: what does a policy do to the road when it drives? Many
scenarios advance in lockstep as numpy arrays. Everything is a pure function of scenario identities and the policy;
no clock, no global state, no files. It is a comparison instrument for two artifacts of one contract, not a model of
real traffic, and it judges nothing: margins and verdicts belong to validation.
"""
