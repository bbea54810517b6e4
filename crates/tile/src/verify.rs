//! The rules of the tile IR, checked once when a tile is finished: the lowerings and the interpreter rely on them.

use super::error::{TileError, TileErrorKind};
use super::ir::{Address, Inst, Lanes, Operand, Pointer, Stmt, Tile, Trips, Vector};

/// Room that is kept below the largest displacement, for lowerings that split an access.
const DISPLACEMENT_LIMIT: i64 = i32::MAX as i64 - 4096;

/// Checks that everything is defined before use and in scope, and that constants are in range.
pub(crate) fn verify(tile: &Tile) -> Result<(), TileError> {
    let mut pointers = vec![false; tile.pointers.len()];
    pointers[..tile.pointer_params].fill(true);
    let mut scope = Scope { tile, vectors: vec![false; tile.vectors as usize], pointers };
    scope.block(&tile.body).map_err(|kind| TileError { tile: tile.name.clone(), kind })
}

/// What is defined so far, by number.
#[derive(Clone)]
struct Scope<'a> {
    tile: &'a Tile,
    vectors: Vec<bool>,
    pointers: Vec<bool>,
}

impl Scope<'_> {
    fn block(&mut self, block: &[Stmt]) -> Result<(), TileErrorKind> {
        for stmt in block {
            match stmt {
                Stmt::Inst(inst) => self.inst(inst)?,
                Stmt::Loop(l) => {
                    let show = || self.tile.show_loop(l);
                    if l.trips == Trips::Const(0) {
                        return Err(range(show(), "number of trips", 0, "1 and up"));
                    }
                    if let Trips::Any(v) = l.trips
                        && !self.has_vector(v)
                    {
                        return Err(TileErrorKind::Undefined { name: v.to_string(), inst: show() });
                    }
                    self.clone().block(&l.body)?;
                    if let Some(&(p, _)) = l.advances.iter().find(|&&(p, _)| !self.has_pointer(p)) {
                        let name = self.tile.pointer_name(p).to_owned();
                        return Err(TileErrorKind::Undefined { name, inst: show() });
                    }
                }
            }
        }
        Ok(())
    }

    fn has_vector(&self, v: Vector) -> bool {
        self.vectors.get(v.0 as usize).is_some_and(|&defined| defined)
    }

    fn has_pointer(&self, p: Pointer) -> bool {
        self.pointers.get(p.0 as usize).is_some_and(|&defined| defined)
    }

    fn inst(&mut self, inst: &Inst) -> Result<(), TileErrorKind> {
        let undefined = |name: String| TileErrorKind::Undefined { name, inst: self.tile.show(inst) };
        let mut missing: Option<Vector> = None;
        inst.for_each_use(|v| {
            if !self.has_vector(v) {
                missing.get_or_insert(v);
            }
        });
        if let Some(v) = missing {
            return Err(undefined(v.to_string()));
        }
        if let Some(p) = inst.pointer().filter(|&p| !self.has_pointer(p)) {
            return Err(undefined(self.tile.pointer_name(p).to_owned()));
        }
        self.constants(inst)?;
        if let Some(v) = inst.defines() {
            *self.vectors.get_mut(v.0 as usize).ok_or_else(|| undefined(v.to_string()))? = true;
        }
        if let Inst::Derive { dst, .. } = *inst {
            let name = || self.tile.pointer_name(dst).to_owned();
            *self.pointers.get_mut(dst.0 as usize).ok_or_else(|| undefined(name()))? = true;
        }
        Ok(())
    }

    fn constants(&self, inst: &Inst) -> Result<(), TileErrorKind> {
        let lanes = self.tile.lanes as i64;
        let check = |what, value: i64, low: i64, high: i64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(range(self.tile.show(inst), what, value, &format!("{low} to {high}")))
        };
        let reaches = |at: Address, bytes: i64| {
            check("displacement", i64::from(at.bytes) + bytes, -DISPLACEMENT_LIMIT, DISPLACEMENT_LIMIT)
        };
        match *inst {
            Inst::Load { at, lanes: which, .. } | Inst::Store { at, lanes: which, .. } => {
                reaches(at, 0)?;
                if let Lanes::First(n) = which {
                    check("number of lanes", i64::from(n), 1, lanes)?;
                }
            }
            Inst::LoadSplat { at, .. } => reaches(at, 0)?,
            Inst::Gather { at, stride, lanes: n, .. } => {
                check("number of lanes", i64::from(n), 1, lanes)?;
                reaches(at, 0)?;
                reaches(at, i64::from(stride) * (lanes - 1))?;
            }
            Inst::StoreLane { lane, at, .. } => {
                check("lane", i64::from(lane), 0, lanes - 1)?;
                reaches(at, 0)?;
            }
            Inst::Shift { by, .. } => check("shift", i64::from(by), 0, 31)?,
            Inst::Shuffle { pattern, .. } => {
                for lane in 0..self.tile.lanes {
                    check("picked lane", pattern.get(lane) as i64, 0, 2 * lanes - 1)?;
                }
            }
            Inst::Binary { b, .. } | Inst::Fma { b, .. } | Inst::Select { b, .. } => {
                if let Operand::Memory(at) | Operand::Splat(at) = b {
                    reaches(at, 0)?;
                }
            }
            Inst::Const { .. }
            | Inst::Unary { .. }
            | Inst::Derive { .. }
            | Inst::Advance { .. }
            | Inst::AdvanceBy { .. }
            | Inst::Prefetch { .. } => {}
        }
        Ok(())
    }
}

fn range(inst: String, what: &'static str, value: i64, accepted: &str) -> TileErrorKind {
    TileErrorKind::Range { inst, what, value, accepted: accepted.to_owned() }
}
