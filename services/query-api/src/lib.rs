//! JSON queries: plan, fan out, merge, receipt.
