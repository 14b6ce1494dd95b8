"""An independent re-statement of the published method, used only as an oracle by the tests."""
