"""Protection by other means than differential privacy: what each resists, what breaks it, and an attack on each.

None of these carries the guarantee of the rest of the library, and ``efsgd release`` refuses what they write by name.
Private rows are the one exception: ``private_smote`` (``efsgd protect smote --epsilon``) is differentially private. Its
directory has no mark of a protection and a ``PRIVACY.md``, and may be published as it is.
"""
