//! Extension points, and at which of them a plugin is on.

/// An extension point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "upstream's own names")]
pub enum Point {
    PreEnqueue,
    QueueSort,
    PreFilter,
    Filter,
    PostFilter,
    PreScore,
    Score,
    Reserve,
    Permit,
    PreBind,
    Bind,
}

impl Point {
    /// The point of this name in a configuration. `postBind` has none: no plugin of ours is there.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "preEnqueue" => Self::PreEnqueue,
            "queueSort" => Self::QueueSort,
            "preFilter" => Self::PreFilter,
            "filter" => Self::Filter,
            "postFilter" => Self::PostFilter,
            "preScore" => Self::PreScore,
            "score" => Self::Score,
            "reserve" => Self::Reserve,
            "permit" => Self::Permit,
            "preBind" => Self::PreBind,
            "bind" => Self::Bind,
            _ => return None,
        })
    }
}

/// A set of points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Points(u16);

impl Points {
    /// All of these.
    #[must_use]
    pub fn all(points: &[Point]) -> Self {
        let mut out = Self::default();
        points.iter().for_each(|p| out.insert(*p));
        out
    }

    /// Whether a point is among them.
    #[must_use]
    pub fn contains(self, point: Point) -> bool {
        self.0 & (1 << point as u16) != 0
    }

    /// Adds one.
    pub fn insert(&mut self, point: Point) {
        self.0 |= 1 << point as u16;
    }

    /// Takes one out.
    pub fn remove(&mut self, point: Point) {
        self.0 &= !(1 << point as u16);
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}
