"""Protection by other means than differential privacy: what each resists, what breaks it, and an attack on each.

None of these carries the guarantee of the rest of the library. ``efsgd release`` refuses what they write.
"""
